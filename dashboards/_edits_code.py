"""Edits as the Python that does the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from _dictionaries import BUNDLED, dictionaries
from _edits import NOISE, SILENCE, AnyEdit, Edit
from _sounds import bundled_sound

from palscope import interventions
from palscope.audio import CLIPS_FOLDER
from palscope.errors import PalscopeError
from palscope.interventions import Address, Knockout, Patch, Resample, Scale, Sound


def code(
    edits: Sequence[AnyEdit],
    made: Sequence[Sequence[Knockout | Patch]],
    opened: str,
    question: str,
) -> str:
    """The same in Python, for a clip in CLIP.wav.

    Args:
        edits: that the visitor has made.
        made: what each of them does inside the model.
        opened: the model's name.
        question: about the clip.

    Raises:
        PalscopeError: an edit puts in other sound, which is at hand on the page alone.
    """
    sound_is_put_in = any(isinstance(each, Edit) and each.brings_sound for each in edits)
    if sound_is_put_in or any(each.source == NOISE for each in edits):
        raise PalscopeError("other sound is put in by edit_waveform and Resample.")
    sources = _named("other", [each.source for each in edits if each.source])
    sources |= {name: "silence" for name in sources if name == SILENCE}
    loaded = _named("dictionary", dictionaries(edits))
    calls = [
        f"    {_call(each, sources.get(edit.source, ''))},"
        for edit, found in zip(edits, made, strict=True)
        for each in found
    ]
    within = ["intervene(model, inputs, changes)"]
    if loaded:
        within.insert(0, f"spliced(model, {', '.join(loaded.values())})")
    text = "\n".join(
        [
            f"model = palscope.load({_text(opened)})",
            f'sound, question = palscope.load_audio("CLIP.wav"), {_text(question)}',
            "inputs = model.inputs(question, sound)",
            *[f"{name} = load_dictionary({_folder(of)})" for of, name in loaded.items()],
            *[line for of, name in sources.items() for line in _other(of, name)],
            "changes = [",
            *calls,
            "]",
            "print(model.ask(question, sound))",
            f"with {', '.join(within)}:",
            "    print(model.ask(question, sound))",
        ]
    )
    return f"{_imports(text)}\n\n{text}\n"


def _named(what: str, found: Sequence[str]) -> dict[str, str]:
    """Names of variables; of one alone without a number."""
    each = list(dict.fromkeys(found))
    return {of: what if len(each) == 1 else f"{what}_{number}" for number, of in enumerate(each)}


def _imports(text: str) -> str:
    """What a text needs."""
    public: Mapping[str, Sequence[str]] = {
        "palscope.audio": ("CLIPS_FOLDER", "bundled_scenes"),
        "palscope.features": ("FEATURES_FOLDER", "load_dictionary", "spliced"),
        "palscope.interventions": interventions.__all__,
    }
    words = set(re.findall(r"\w+", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)))
    lines = ["import numpy as np", ""] if "np" in words else []
    lines.append("import palscope")
    for module, names in public.items():
        if used := [name for name in names if name in words]:
            lines.append(f"from {module} import {', '.join(used)}")
    return "\n".join(lines)


def _folder(name: str) -> str:
    return 'FEATURES_FOLDER / "dictionary"' if name == BUNDLED else _text(name)


def _other(source: str, name: str) -> list[str]:
    """A clip as long as the sound, which a variable holds."""
    lines = [f"{name} = np.zeros_like(sound.samples)"]
    if source == SILENCE:
        return lines
    path = bundled_sound(source).path
    clip = f"next(each.waveform for each in bundled_scenes() if each.name == {_text(source)})"
    if path:
        inside = Path(path).relative_to(CLIPS_FOLDER).as_posix()
        clip = f"palscope.load_audio(CLIPS_FOLDER / {_text(inside)})"
    return [
        *lines,
        f"clip = {clip}.samples[: len(sound.samples)]",
        f"{name}[: len(clip)] = clip",
    ]


def _call(made: Knockout | Patch, source: str) -> str:
    if isinstance(made, Knockout):
        return f"Knockout({_address(made.address)})"
    change = f"{type(made.change).__name__}()"
    if isinstance(made.change, Resample):
        change = f"Resample(model.inputs(question, {source}))"
    elif isinstance(made.change, Scale):
        change = f"Scale({made.change.factor:g})"
    return f"Patch({_address(made.address)}, {change})"


def _address(address: Address) -> str:
    parts = [_text(address.site)]
    sound = address.tokens
    if isinstance(sound, Sound):
        end = "None" if sound.end is None else f"{sound.end:g}"
        stream = "" if sound.stream is None else f", {_text(sound.stream)}"
        parts.append(f"Sound({sound.start:g}, {end}{stream})")
    for name in ("layers", "heads", "features"):
        if (given := getattr(address, name)) is not None:
            parts.append(f"{name}={given}")
    if address.at is not None:
        parts.append(f"at={_text(address.at)}")
    return f"Address({', '.join(parts)})"


def _text(written: str) -> str:
    return json.dumps(written, ensure_ascii=False)

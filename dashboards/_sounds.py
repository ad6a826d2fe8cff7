"""The sounds that can be asked about: bundled clips and scenes, uploads, recordings."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import streamlit as st

from palscope._sweeps.clips import SOUND_ENDINGS
from palscope.audio import Waveform, load_audio
from palscope.audio._bundled import BundledScene, bundled_clips, bundled_scenes
from palscope.audio._compose import LabelledSpan
from palscope.audio._told import told
from palscope.datasets._questions import LABELS
from palscope.errors import AudioError

MAX_SECONDS = 30.0
MAX_MEGABYTES = 20
ENDINGS = tuple(ending.removeprefix(".") for ending in SOUND_ENDINGS)

QUESTION_OF_DOMAIN = {
    "sound": "Which everyday sound is this?",
    "speech": "Which digit is spoken?",
    "music": "Which instrument plays?",
}


@dataclass(frozen=True)
class ChosenSound:
    """A clip to ask about.

    `digest` stands for its samples wherever results are remembered; `path` is its file, where it
    is one of the package's; `question`, `answer`, `choices` and `spans` (what sounds when) are
    empty where none is known. `told` is what is odd about it, in sentences.
    """

    name: str
    waveform: Waveform
    digest: str
    path: str = ""
    note: str = ""
    question: str = ""
    answer: str = ""
    choices: tuple[str, ...] = ()
    spans: tuple[LabelledSpan, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def focus(self) -> tuple[float, float] | None:
        """The seconds in which the answer to its question sounds, where that is one place."""
        found = [each for each in self.spans if each.label == self.answer]
        if len(found) != 1:
            return None
        return round(found[0].start, 2), round(found[0].end, 2)


@st.cache_data(show_spinner=False)
def bundled_names() -> dict[str, list[str]]:
    """Names of the bundled sounds, by domain; composed scenes last."""
    names: dict[str, list[str]] = {}
    for name, row in _clip_rows().items():
        names.setdefault(row["domain"], []).append(name)
    return names | {"scenes": [*_scenes()]}


def bundled_name(path: Path) -> str | None:
    """The bundled clip of a file; None of any other."""
    rows = _clip_rows().items()
    return next((name for name, row in rows if Path(row["path"]).resolve() == path), None)


@st.cache_data(show_spinner="Reading the sound …")
def bundled_sound(name: str) -> ChosenSound:
    """A bundled clip or scene by its name."""
    if name in _scenes():
        return _of_scene(_scenes()[name])
    row = _clip_rows()[name]
    data = Path(row["path"]).read_bytes()
    waveform, odd = read(data, name)
    return ChosenSound(
        name,
        waveform,
        hashlib.sha256(data).hexdigest(),
        path=row["path"],
        note=f"[{row['title']}]({row['source']}) by {row['author']}, {row['licence']}",
        question=QUESTION_OF_DOMAIN[row["domain"]],
        answer=row["label"],
        choices=LABELS[row["domain"]],
        told=odd,
    )


@st.cache_data(max_entries=16, show_spinner="Reading the sound …")
def given_sound(data: bytes, name: str) -> ChosenSound:
    """An uploaded or recorded sound. Raises `AudioError`, naming the file."""
    waveform, odd = read(data, name)
    return ChosenSound(name, waveform, hashlib.sha256(data).hexdigest(), told=odd)


def read(data: bytes, name: str) -> tuple[Waveform, tuple[str, ...]]:
    """The sound of a file's bytes, at 16 kHz, and what is odd about it.

    Raises `AudioError`, naming the file.
    """
    if len(data) > MAX_MEGABYTES * 1e6:
        raise AudioError(
            f"{name} has {len(data) / 1e6:.0f} MB; this page takes up to {MAX_MEGABYTES} MB. "
            "Cut the sound, or convert it to FLAC or MP3."
        )
    file = io.BytesIO(data)
    file.name = name  # for error messages; nothing is written under it
    with told() as odd:
        waveform = load_audio(file, max_seconds=MAX_SECONDS)
    return waveform, tuple(odd)


def example_questions() -> list[str]:
    """Questions that the demo was trained for."""
    return [
        *QUESTION_OF_DOMAIN.values(),
        "How many digits are spoken?",
        "Which digit is spoken first?",
    ]


@st.cache_resource
def _scenes() -> dict[str, BundledScene]:
    """The scenes by name; putting them together reads a dozen files."""
    return {scene.name: scene for scene in bundled_scenes()}


def _of_scene(scene: BundledScene) -> ChosenSound:
    heard = ", ".join(f"{span.label} at {span.start:.2f} s" for span in scene.spans)
    return ChosenSound(
        scene.name,
        scene.waveform,
        hashlib.sha256(scene.waveform.samples.tobytes()).hexdigest(),
        note=f"put together from bundled clips: {heard}",
        question=scene.question,
        answer=scene.answer,
        choices=scene.choices,
        spans=scene.spans,
    )


def _clip_rows() -> dict[str, dict[str, Any]]:
    """The bundled clips by name: their label, numbered where it repeats."""
    table = bundled_clips()
    number = table.groupby("label").cumcount() + 1
    repeats = table["label"].duplicated(keep=False)
    names = table["label"].where(~repeats, table["label"] + " " + number.astype(str))
    rows = cast(list[dict[str, Any]], table.to_dict("records"))
    return dict(zip(names, rows, strict=True))

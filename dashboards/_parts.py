"""What the attention page computes and keeps between reruns: models, clips, answers.

Kept apart from the page, whose script runs anew at every click.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import pandas as pd
import soundfile
import streamlit as st
import torch
from jaxtyping import Float

from palscope.audio import Waveform, load_audio
from palscope.audio.bundled import bundled_clips
from palscope.errors import AudioError
from palscope.hooks import HookedAudioModel, load
from palscope.measures import attention_mass
from palscope.models import AudioClips
from palscope.models.checkpoints import find_checkpoint
from palscope.routing import Level, Route

DEMO = ("demo/pal", "demo/lal", "demo/plits")
QUESTIONS = (
    "Which everyday sound is this?",
    "Which digit is spoken?",
    "Which instrument plays?",
    "How many digits are spoken?",
    "Which digit is spoken first?",
)
MAX_SECONDS = 30.0
MAX_MEGABYTES = 20
ANSWER_TOKENS = 12
"""Longest answer in tokens: the demo's take four at most."""


@dataclass(frozen=True)
class OpenModel:
    """A hooked model for all visitors; `lock` is held while its route is changed."""

    model: HookedAudioModel
    route: Route
    version: str
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True)
class Heard:
    """An answer and where it came from.

    `probabilities`: of each token of the vocabulary, to be the first of the answer. `mass`: the
    table of `attention_mass` of the prompt's last token, which predicts that first token.
    """

    answer: str
    probabilities: Float[np.ndarray, " vocabulary"]
    mass: pd.DataFrame


def demo_models() -> list[str]:
    """The demo checkpoints that this clone has."""
    root = Path(__file__).resolve().parents[1]
    return [name for name in DEMO if list((root / name).glob("*.safetensors"))]


def version_of(name: str) -> str:
    """A short text that changes when the files of the checkpoint `name` do.

    Raises `CheckpointError` when there is none.
    """
    folder = find_checkpoint(name)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


@st.cache_resource(max_entries=2, show_spinner="Loading the model: once, about ten seconds …")
def open_model(name: str, version: str) -> OpenModel:
    """The hooked model of a checkpoint, loaded once for each version of its files."""
    # Leave cores to the server and the browser: torch's threads spin while they wait for one.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    model = load(name)
    return OpenModel(model, model.current_route, version)


@st.cache_data(show_spinner=False)
def bundled() -> dict[str, dict[str, Any]]:
    """The bundled clips by the name they are chosen by: their label, numbered where it repeats."""
    table = bundled_clips()
    number = table.groupby("label").cumcount() + 1
    repeats = table["label"].duplicated(keep=False)
    names = table["label"].where(~repeats, table["label"] + " " + number.astype(str))
    rows = cast(list[dict[str, Any]], table.to_dict("records"))
    return dict(zip(names, rows, strict=True))


@st.cache_data(max_entries=16, show_spinner="Reading the sound …")
def read_clip(data: bytes, name: str) -> Waveform:
    """The sound of a file's bytes, at 16 kHz. Raises `AudioError`, naming the file."""
    if len(data) > MAX_MEGABYTES * 1e6:
        raise AudioError(
            f"{name} has {len(data) / 1e6:.0f} MB; this page takes up to {MAX_MEGABYTES} MB. "
            "Cut the sound, or convert it to FLAC or MP3."
        )
    file = io.BytesIO(data)
    file.name = name
    return load_audio(file, max_seconds=MAX_SECONDS)


def playable(waveform: Waveform) -> bytes:
    """The sound as a WAV file, as loud as it is: Streamlit would play an array at full scale."""
    file = io.BytesIO()
    samples = np.clip(waveform.samples, -1, 1)
    soundfile.write(file, samples, waveform.sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


@st.cache_resource(max_entries=8, show_spinner=False)
def _encoded(_opened: OpenModel, version: str, clip: str, _waveform: Waveform) -> AudioClips:
    """The clip as the decoder reads it, and the keys and values made of it so far."""
    return _opened.model.encode_audio(_opened.model.inputs("?", _waveform))


@st.cache_data(max_entries=32, show_spinner="Listening …")
def listen(
    _opened: OpenModel, version: str, clip: str, _waveform: Waveform, question: str, route: str
) -> Heard:
    """The greedy answer to `question` under a route, its top tokens and its attention.

    Args:
        version: of the checkpoint.
        clip: a text that stands for the clip's sound.
        route: as `route_text` writes it.
    """
    model = _opened.model
    inputs = model.inputs(question, _waveform)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), _opened.lock, model.route(Route.from_dict(json.loads(route))):
        given: dict[str, Any] = inputs | {"audio": _encoded(_opened, version, clip, _waveform)}
        out: Any = model.model.generate(
            **given,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            pad_token_id=model.tokenizer.pad_token_id,
            eos_token_id=model.tokenizer.eos_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        mass = attention_mass(model, given)
    new = out.sequences[0, inputs["input_ids"].shape[1] :]
    answer = model.tokenizer.decode(new, skip_special_tokens=True).strip()
    return Heard(answer, out.logits[0][0].float().softmax(-1).numpy(), mass)


def top_tokens(opened: OpenModel, heard: Mapping[str, Heard], count: int) -> pd.DataFrame:
    """The `count` likeliest first tokens of each answer, with their probabilities in all answers.

    Columns: `token` (its text, spaces and line ends made visible), `route` (the key in `heard`),
    `probability`; in the order of the first answer's probabilities.
    """
    likely = [set(np.argsort(h.probabilities)[-count:].tolist()) for h in heard.values()]
    first = next(iter(heard.values())).probabilities
    tokens = sorted(set.union(*likely), key=lambda token: -first[token])
    texts = [opened.model.tokenizer.decode([token]) for token in tokens]
    shown = [text.replace(" ", "␣").replace("\n", "⏎") for text in texts]
    return pd.concat(
        [
            pd.DataFrame({"token": shown, "route": name, "probability": h.probabilities[tokens]})
            for name, h in heard.items()
        ],
        ignore_index=True,
    )


def route_text(route: Route) -> str:
    """A route as text, to remember results by."""
    return json.dumps(route.to_dict())


def switched(route: Route, kept: Mapping[str, Iterable[int]]) -> Route:
    """`route` with each stream left on only in the layers given for it."""
    for stream, layers in kept.items():
        route = route.keep(stream, layers)
    return route


_WORDS = {
    Level.KEYS: "text reads it, it does not change (keys and values only: LAL)",
    Level.ATTEND: "it also reads, but skips the feed-forward network",
    Level.FULL: "ordinary tokens that read, are read and change (PLITS)",
}


def route_words(route: Route, frame_seconds: float) -> list[str]:
    """One sentence a stream and level: where the sound takes part, and how."""
    lines: list[str] = []
    for stream in route.streams:
        what = f"**{stream.name}** (a token every {stream.ratio * frame_seconds:g} s)"
        used = [(level, route.layers(stream.name, level)) for level in _WORDS]
        lines += [f"{what}, {spans(layers)}: {_WORDS[level]}" for level, layers in used if layers]
        if not any(layers for _, layers in used):
            lines.append(f"{what}: off in every layer")
    return lines


def spans(layers: Iterable[int]) -> str:
    """Layer numbers in short: `layers 0–9, 12`.

    >>> spans([0, 1, 2, 5])
    'layers 0–2, 5'
    """
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    texts = [f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    plain = len(runs) == 1 and len(runs[0]) == 1
    return ("layer " if plain else "layers ") + ", ".join(texts)

"""The sound that comes with the package: clips of three domains, and scenes made of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from palscope.audio._compose import SAMPLE_RATE, LabelledSpan, Scene, at_level, join, overlay, trim
from palscope.audio._waveform import Waveform, load_audio

CLIPS_FOLDER = Path(str(files("palscope") / "assets" / "clips"))


def bundled_clips() -> pd.DataFrame:
    """The bundled clips, one row a clip: everyday sounds, then spoken digits, then instruments.

    Columns: `path` (absolute), `domain` (`sound`, `speech`, `music`), `label`, `author`, `title`,
    `source` (address of what it was made from), `licence`, `duration_s` (seconds).

    The same table with relative paths, `assets/clips/clips.csv`, is a manifest that
    `analyses/evaluate.py` can score. Sources and licences: `assets/clips/ATTRIBUTION.md`.
    """
    return _read("clips.csv")


def bundled_notes() -> pd.DataFrame:
    """The notes of the bundled music, one row a note, as they were written before rendering.

    Columns: `path` (absolute, as in `bundled_clips`), `start_s`, `end_s` (seconds), `midi_pitch`
    (for the clip of drums, the key of General MIDI's drum kit). An instrument may go on sounding
    after a note's end, and bowed or sung ones take some 20 to 40 ms to start.
    """
    return _read("music/notes.csv")


@dataclass(frozen=True, eq=False)
class BundledScene:
    """Bundled clips put together, with a question whose answer and place in time are known.

    `waveform` is at 16 kHz. `choices` are the answers to rank, `answer` one of them. `spans` says
    what sounds when, in seconds and exact to the sample; the spans of a mixture overlap.
    """

    name: str
    waveform: Waveform
    question: str
    answer: str
    choices: tuple[str, ...]
    spans: tuple[LabelledSpan, ...]


def bundled_scenes() -> list[BundledScene]:
    """Six scenes, made anew at each call and always the same.

    Parts are trimmed to where they sound, brought to one loudness and joined with 0.3 s of silence.
    """
    clips: Any = bundled_clips()
    labels: dict[str, tuple[str, ...]] = {}
    paths: dict[str, str] = {}  # of each label's first clip
    for domain, label, path in zip(clips["domain"], clips["label"], clips["path"], strict=True):
        if label not in paths:
            labels[domain] = (*labels.get(domain, ()), label)
            paths[label] = path

    def part(label: str, seconds: float = 2.0) -> Scene:
        samples = trim(load_audio(paths[label]).samples)[: round(seconds * SAMPLE_RATE)]
        # Cut to where it sounds, so all of it is the label's.
        return Scene(
            at_level(samples, 0.05), (LabelledSpan(label, 0.0, len(samples) / SAMPLE_RATE),)
        )

    def row(*names: str) -> Scene:
        return join([part(name) for name in names], [0.3] * (len(names) - 1))

    digits, instruments = labels["speech"], labels["music"]
    which_digit = "Which digit is spoken?"
    in_rain = overlay(part("six"), part("rain", 3.0), back_db=-12, rng=np.random.default_rng(1))
    scenes: list[tuple[str, Scene, str, str, tuple[str, ...]]] = [
        (
            "three, seven, one",
            row("three", "seven", "one"),
            "Which digit is spoken second?",
            "seven",
            digits,
        ),
        (
            "nine, two, five, four",
            row("nine", "two", "five", "four"),
            "Which digit is spoken last?",
            "four",
            digits,
        ),
        (
            "dog, then rain",
            row("dog", "rain"),
            "Two sounds follow each other. Which comes first?",
            "dog",
            ("dog", "rain"),
        ),
        ("rooster, then eight", row("rooster", "eight"), which_digit, "eight", digits),
        ("piano, then zero", row("piano", "zero"), "Which instrument plays?", "piano", instruments),
        ("six, in the rain", in_rain, which_digit, "six", digits),
    ]
    return [
        BundledScene(
            name, Waveform(scene.samples, SAMPLE_RATE, name), question, answer, choices, scene.spans
        )
        for name, scene, question, answer, choices in scenes
    ]


def _read(name: str) -> pd.DataFrame:
    table = cast(Any, pd).read_csv(CLIPS_FOLDER / name)
    table["path"] = [str(CLIPS_FOLDER / path) for path in table["path"]]
    return table

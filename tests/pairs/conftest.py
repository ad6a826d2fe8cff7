"""A corpus of tones that needs no files: a label is one pitch, a speaker another one above it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palscope.datasets._manifest import Clip, Corpus
from palscope.datasets._questions import LABELS

RATE = 16_000
SPEAKERS = {"ann": 4000, "bob": 5000}
SECONDS = {"sound": 4.0, "speech": 0.35, "music": 2.8}


def pitch(domain: str, label: str) -> int:
    return 500 + 100 * LABELS[domain].index(label)


class Tones:
    """Longer with each label, louder with each take, and silence around."""

    def __getitem__(self, clip: Clip) -> np.ndarray:
        number = LABELS[clip.domain].index(clip.label)
        time = np.arange(round((SECONDS[clip.domain] + 0.02 * number) * RATE)) / RATE
        tone = np.sin(2 * np.pi * pitch(clip.domain, clip.label) * time)
        tone += 0.5 * np.sin(2 * np.pi * SPEAKERS[clip.group] * time)
        silence = np.zeros(round(0.1 * RATE))
        loudness = 0.1 * (1 + int(clip.name[-1]))
        return np.concatenate([silence, loudness * tone, silence]).astype(np.float32)


def tones(*, speakers: tuple[str, ...] = ("ann", "bob"), takes: int = 3) -> Corpus:
    clips = [
        Clip(f"{label}_{speaker}_{take}", Path(f"{label}_{take}"), domain, label, group=speaker)
        for domain, labels in LABELS.items()
        for label in labels
        for speaker in speakers
        for take in range(takes)
    ]
    return Corpus(tuple(clips), Tones())


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return tones()


def spectrum(samples: np.ndarray) -> dict[int, float]:
    """Amplitude at multiples of 100 Hz."""
    power = np.abs(np.fft.rfft(samples, n=16 * RATE))
    return {hertz: float(power[16 * hertz]) for hertz in range(100, 8000, 100)}


def heard(samples: np.ndarray, domain: str) -> tuple[str, str]:
    """Label and speaker of a tone."""
    power = spectrum(samples)
    label = max(LABELS[domain], key=lambda each: power[pitch(domain, each)])
    return label, max(SPEAKERS, key=lambda each: power[SPEAKERS[each]])

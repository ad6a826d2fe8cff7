"""Putting clips together: cut to where the sound is, join with pauses, lay one under another.

Every result keeps the times of its parts, in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16_000
"""Sample rate of everything that is put together here, in Hz."""

_FRAME = SAMPLE_RATE // 50  # 20 ms, short enough to find a single bark


class LabelledSpan(NamedTuple):
    """A labelled stretch of a clip, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Scene:
    """Samples at 16 kHz with the times of what they hold."""

    samples: Float[np.ndarray, " samples"]
    spans: tuple[LabelledSpan, ...]

    @property
    def seconds(self) -> float:
        """Length of the samples."""
        return len(self.samples) / SAMPLE_RATE


def scene(label: str, samples: Float[np.ndarray, " samples"]) -> Scene:
    """One clip on its own. Its span is the active part, without silence before and after."""
    start, end = active_part(samples)
    return Scene(samples, (LabelledSpan(label, start / SAMPLE_RATE, end / SAMPLE_RATE),))


def frame_energy(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """Mean square of each 20 ms frame; the last frame may be shorter."""
    # In double precision: the squares of single-precision samples may overflow, or vanish.
    padded = np.zeros(-(-len(samples) // _FRAME) * _FRAME)
    padded[: len(samples)] = samples
    return (padded.reshape(-1, _FRAME) ** 2).mean(axis=1)


def active_part(
    samples: Float[np.ndarray, " samples"], *, below_peak_db: float = 40.0
) -> tuple[int, int]:
    """First and last sample (half open) of the part within `below_peak_db` of the loudest frame.

    Clips of environmental sound are often padded with digital silence. A silent clip is active
    throughout, so that nobody ends up with an empty one.
    """
    energy = frame_energy(samples)
    loud = np.flatnonzero(energy > energy.max(initial=0.0) * 10 ** (-below_peak_db / 10))
    if len(loud) == 0:
        return 0, len(samples)
    return int(loud[0]) * _FRAME, min((int(loud[-1]) + 1) * _FRAME, len(samples))


def trim(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " active"]:
    """The active part alone."""
    start, end = active_part(samples)
    return samples[start:end]


def crop(
    samples: Float[np.ndarray, " samples"], seconds: float, rng: np.random.Generator
) -> Float[np.ndarray, " window"]:
    """A random window of the given length that holds a good share of the sound.

    The window is drawn among those with at least half as much amplitude as the fullest one (the
    root of the energy, so that one loud crack does not decide). A shorter clip comes back whole.
    """
    length = round(seconds * SAMPLE_RATE)
    if len(samples) <= length:
        return samples
    amount = np.concatenate([[0.0], np.cumsum(np.sqrt(frame_energy(samples)))])
    frames = max(1, length // _FRAME)
    in_window = amount[frames:] - amount[:-frames]
    starts = np.flatnonzero(in_window >= 0.5 * in_window.max())
    start = min(int(rng.choice(starts)) * _FRAME, len(samples) - length)
    return samples[start : start + length]


def level(samples: Float[np.ndarray, " samples"]) -> float:
    """Root mean square of the frames within 30 dB of the loudest: how loud it is when it sounds."""
    energy = frame_energy(samples)
    loudest = energy.max(initial=0.0)
    return float(np.sqrt(energy[energy >= loudest * 1e-3].mean())) if loudest > 0 else 0.0


def at_level(samples: Float[np.ndarray, " samples"], rms: float) -> Float[np.ndarray, " samples"]:
    """The samples scaled to a root mean square (see `level`); silence stays silence."""
    now = level(samples)
    return (samples * np.float64(rms / now)).astype(np.float32) if now > 0 else samples


def join(parts: Sequence[Scene], gaps: Sequence[float]) -> Scene:
    """The parts one after the other, with digital silence of `gaps` seconds between them."""
    pieces: list[np.ndarray] = []
    spans: list[LabelledSpan] = []
    place = 0
    for part, gap in zip(parts, [*gaps, 0.0], strict=True):
        offset = place / SAMPLE_RATE
        spans += [LabelledSpan(s.label, s.start + offset, s.end + offset) for s in part.spans]
        silence = np.zeros(round(gap * SAMPLE_RATE), dtype=np.float32)
        pieces += [part.samples, silence]
        place += len(part.samples) + len(silence)
    return Scene(np.concatenate(pieces), tuple(spans))


def overlay(front: Scene, back: Scene, *, back_db: float, rng: np.random.Generator) -> Scene:
    """`front` somewhere on top of `back`, which plays `back_db` dB louder (negative: quieter).

    The result is as long as the longer of the two; the shorter one starts at a random place.
    """
    length = max(len(front.samples), len(back.samples))
    mixed = np.zeros(length, dtype=np.float32)
    spans: list[LabelledSpan] = []
    target = level(front.samples) * 10 ** (back_db / 20)
    for part, samples in ((front, front.samples), (back, at_level(back.samples, target))):
        start = int(rng.integers(length - len(samples) + 1))
        mixed[start : start + len(samples)] += samples
        offset = start / SAMPLE_RATE
        spans += [LabelledSpan(s.label, s.start + offset, s.end + offset) for s in part.spans]
    return Scene(mixed, tuple(spans))

"""What is played of a clip: the seconds that a unit responds to, and what sounds around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from palscope._features.heard.index import UnitIndex
from palscope.audio import Waveform, load_audio
from palscope.audio._mel import log_mel
from palscope.audio._told import told
from palscope.errors import AudioError

CONTEXT_S = 0.5
"""Before and behind what a unit responds to."""
_RATE = 16_000
_LATE_S = 0.05
"""So far may a sound's length be from the stored one."""


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a clip.

    Attributes:
        waveform: the sound.
        begins: its first second in the clip.
        mel: the clip's log-mel features there, 10 ms a column.
        scale: the smallest and the largest of them in the whole clip.
    """

    waveform: Waveform
    begins: float
    mel: Float[np.ndarray, "mel columns"]
    scale: tuple[float, float]


def excerpt(index: UnitIndex, clip: int, start: float, end: float) -> Excerpt:
    """The seconds `start` to `end` of a clip with `CONTEXT_S` around them.

    Raises:
        AudioError: the clip's sound was not given, is gone, cannot be read or is another one.
    """
    sound = sound_of(index, clip)
    first = max(0.0, start - CONTEXT_S)
    last = min(sound.seconds, end + CONTEXT_S)
    samples = sound.samples[round(first * _RATE) : round(last * _RATE)]
    extractor = _extractor()
    mel = log_mel(sound.samples, extractor).numpy()
    hop = extractor.hop_length / _RATE
    columns = slice(round(first / hop), max(round(last / hop), round(first / hop) + 1))
    scale = float(mel.min()), float(mel.max())
    return Excerpt(Waveform(samples, _RATE, sound.source), first, mel[:, columns], scale)


def sound_of(index: UnitIndex, clip: int) -> Waveform:
    """A clip's whole sound. Raises `AudioError` as `excerpt`."""
    clips: Any = index.clips
    about = clips.iloc[clip]
    name, seconds = str(about["name"]), float(about["seconds"])
    if not about["sound"]:
        raise AudioError(f"{name}: no sound file was given for it when the index was made.")
    path = index.path(str(about["sound"]))
    if not path.is_file():
        raise AudioError(f"{name}: {path} is gone; put it back, or make the index again.")
    with told():  # what is odd about it is no listener's matter
        sound = load_audio(path, sample_rate=_RATE)
    if abs(sound.seconds - seconds) > _LATE_S:
        raise AudioError(
            f"{name}: {path} lasts {sound.seconds:.2f} s now, {seconds:.2f} s "
            "when it was stored; it is another sound."
        )
    return sound


@lru_cache(maxsize=1)
def _extractor() -> Any:
    from transformers import WhisperFeatureExtractor  # slow, and only players need it

    return WhisperFeatureExtractor()

"""Sound in: waveforms, mel features, bundled clips, and the grid of tokens in seconds."""

from __future__ import annotations

from palscope.audio._bundled import CLIPS_FOLDER, bundled_clips, bundled_scenes
from palscope.audio._mel import log_mel
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Waveform, load_audio

__all__ = [
    "CLIPS_FOLDER",
    "TimeGrid",
    "Waveform",
    "bundled_clips",
    "bundled_scenes",
    "load_audio",
    "log_mel",
]

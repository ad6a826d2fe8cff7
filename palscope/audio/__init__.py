"""Sound in: waveforms, mel features, and the grid that ties tokens to seconds."""

from __future__ import annotations

from palscope.audio.mel import log_mel
from palscope.audio.timegrid import TimeGrid
from palscope.audio.waveform import Waveform, load_audio

__all__ = ["TimeGrid", "Waveform", "load_audio", "log_mel"]

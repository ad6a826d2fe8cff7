"""Sound in: waveforms, mel features, and the grid that ties tokens to seconds."""

from __future__ import annotations

from palscope.audio._mel import log_mel
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Waveform, load_audio

__all__ = ["TimeGrid", "Waveform", "load_audio", "log_mel"]

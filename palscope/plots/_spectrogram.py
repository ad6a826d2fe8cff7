"""The log-mel spectrogram as a picture: its values, and where they lie in seconds and Hz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import hertz_to_mel

from palscope.audio import Waveform, load_audio
from palscope.audio._mel import log_mel

_SHOWN_COLUMNS = 1000
_TICKS_HZ = (500, 1000, 2000, 4000)


@dataclass(frozen=True)
class MelImage:
    """What Whisper's encoder hears of a clip.

    Attributes:
        values: log-mel features, long clips averaged down to at most so many columns.
        first: seconds at the centre of the first column.
        step: seconds from one column to the next.
        seconds: length of the clip.
        ticks: mel bins (fractions of a bin) of the frequencies in `tick_labels`, which are in kHz.
    """

    values: Float[np.ndarray, "mel columns"]
    first: float
    step: float
    seconds: float
    ticks: tuple[float, ...]
    tick_labels: tuple[str, ...]


def mel_image(waveform: Waveform, columns: int = _SHOWN_COLUMNS) -> MelImage:
    """The picture of a clip, at most `columns` wide.

    Raises `AudioError` for samples that are empty or not finite.
    """
    extractor: Any = WhisperFeatureExtractor()
    mono = load_audio(waveform, sample_rate=extractor.sampling_rate)
    mel = log_mel(mono.samples, extractor).numpy()
    hop = extractor.hop_length / extractor.sampling_rate
    pooled = -(-mel.shape[1] // columns)
    values = np.stack(
        [mel[:, at : at + pooled].mean(1) for at in range(0, mel.shape[1], pooled)], axis=1
    )
    top = cast(float, hertz_to_mel(extractor.sampling_rate / 2, mel_scale="slaney"))
    bins = mel.shape[0]
    mels = [cast(float, hertz_to_mel(hz, mel_scale="slaney")) for hz in _TICKS_HZ]
    return MelImage(
        values=values.astype(np.float32),
        first=(pooled - 1) / 2 * hop,  # frames are centred on multiples of the hop
        step=pooled * hop,
        seconds=mono.seconds,
        ticks=tuple(mel / top * (bins + 1) - 1 for mel in mels),
        tick_labels=tuple(f"{hz / 1000:g}" for hz in _TICKS_HZ),
    )

"""Whisper's log-mel features of a clip as long as it is, without the padding to 30 seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from palscope.audio._waveform import check_samples

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor


def log_mel(
    samples: Float[np.ndarray, " samples"],
    feature_extractor: WhisperFeatureExtractor,
) -> Float[Tensor, "mel frames"]:
    """Whisper's log-mel features of mono `samples` at the extractor's sample rate.

    One frame every `hop_length` samples (10 ms), the last one covering what is left, so
    `frames = ceil(samples / hop_length)`. Each frame equals the one that the extractor gives when
    it pads the clip to 30 s: the same silence follows the clip while the spectrum is taken, and
    the dynamic range (8 decades below the loudest bin) is that of the clip.

    Sound longer than `chunk_length` (30 s) is cut into windows of that length, each with its own
    spectrum edges and dynamic range, as if it were the only one: later sound never changes the
    features of an earlier window.

    Raises `AudioError` for samples that are empty, not mono or not finite.

    Source: `transformers.WhisperFeatureExtractor`, which computes every value.
    """
    samples = check_samples(samples, "the samples given to log_mel")
    extractor = cast(Any, feature_extractor)
    window: int = extractor.n_samples
    return torch.cat(
        [
            _window_mel(samples[at : at + window], extractor)
            for at in range(0, len(samples), window)
        ],
        dim=1,
    )


def mel_bin_hz(bins: int, sample_rate: int) -> Float[np.ndarray, " bins"]:
    """The centre of each of Whisper's mel bins, in Hz (Slaney's scale, up to half the rate)."""
    top = cast(float, hertz_to_mel(sample_rate / 2, mel_scale="slaney"))
    centres = np.linspace(0.0, top, bins + 2)[1:-1]
    return cast(Any, mel_to_hertz)(centres, mel_scale="slaney")


def _window_mel(samples: np.ndarray, extractor: Any) -> Float[Tensor, "mel frames"]:
    """Features of at most one window of sound, cut to its length."""
    hop: int = extractor.hop_length
    frames = -(-len(samples) // hop)
    # Frames are centred, so the silence after the clip must reach half an FFT past its last sample
    # (and a bit more, for the spectrum mirrors its input at the edge): then no frame that hears
    # the clip is missing from the maximum, which sets the dynamic range.
    margin = -(-extractor.n_fft // hop)
    padded = min((frames + margin) * hop, extractor.n_samples)
    features = extractor(
        samples,
        sampling_rate=extractor.sampling_rate,
        padding="max_length",
        max_length=padded,
        return_tensors="pt",
    )["input_features"][0]
    return features[:, :frames]

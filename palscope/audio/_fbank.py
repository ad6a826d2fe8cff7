"""Kaldi's filter banks of a clip: what encoders of spectrogram patches hear."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_filter_bank, mel_to_hertz, spectrogram
from transformers.audio_utils import window_function as make_window

from palscope.audio._waveform import check_samples

RATE = 16_000
"""Hz."""

_LENGTH, _HOP, _FFT = 400, 160, 512
_LOWEST, _HIGHEST = 20.0, RATE / 2


def kaldi_fbank(samples: Float[np.ndarray, " samples"], bins: int) -> Float[Tensor, "bins frames"]:
    """Log mel energies of 25 ms Hann windows each 10 ms, at 16 kHz, without dither.

    Only whole windows make a frame: `1 + (samples - 400) // 160` of them, none of a clip under
    25 ms.

    Source: Kaldi's `compute-fbank-feats` as `torchaudio.compliance.kaldi.fbank` has it with
    `htk_compat=True, window_type="hanning", dither=0, frame_shift=10`; `transformers.audio_utils`
    computes every value.
    """
    if len(samples) < _LENGTH:
        return torch.zeros(bins, 0)
    values = spectrogram(
        samples,
        cast(Any, make_window)(_LENGTH, "hann", periodic=False),
        frame_length=_LENGTH,
        hop_length=_HOP,
        fft_length=_FFT,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=_filters(bins),
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    )
    return torch.from_numpy(cast(Any, values).astype(np.float32))


def windowed_fbank(
    samples: Float[np.ndarray, " samples"], bins: int, window: int
) -> Float[Tensor, "bins frames"]:
    """`kaldi_fbank` of each `window` frames of sound by itself, a frame for every 10 ms begun.

    Frames at a window's end that are no whole 25 ms are zero, as the published front ends pad them
    (in log energies, before any normalisation). A window shorter than 25 ms is filled up with
    silence. Each frame's own mean is taken off, so taking off the clip's first, as some published
    front ends do, changes nothing.

    Raises:
        AudioError: the samples are empty, not mono or not finite.
    """
    samples = check_samples(samples, "the samples given to windowed_fbank")
    pieces: list[Tensor] = []
    for at in range(0, len(samples), window * _HOP):
        piece = samples[at : at + window * _HOP]
        frames = -(-len(piece) // _HOP)
        values = kaldi_fbank(np.pad(piece, (0, max(0, _LENGTH - len(piece)))), bins)[:, :frames]
        pieces.append(torch.nn.functional.pad(values, (0, frames - values.shape[1])))
    return torch.cat(pieces, dim=1)


def kaldi_hz(places: Any, bins: int) -> Float[np.ndarray, " places"]:
    """Frequencies, in Hz, of places on the axis of bins; bin `i` has its centre at `i`.

    A band of bins `[a, b)` reaches from place `a - 0.5` to `b - 0.5`.
    """
    low, high = (float(hertz_to_mel(hz, mel_scale="kaldi")) for hz in (_LOWEST, _HIGHEST))
    mels = low + (np.asarray(places, dtype=np.float64) + 1) * (high - low) / (bins + 1)
    return cast(Any, mel_to_hertz)(mels, mel_scale="kaldi")


@cache
def _filters(bins: int) -> Float[np.ndarray, "spectrum bins"]:
    with warnings.catch_warnings():
        # Of 128 bins, as all the published models have, the lowest are narrower than the spectrum.
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        return mel_filter_bank(
            num_frequency_bins=_FFT // 2 + 1,
            num_mel_filters=bins,
            min_frequency=_LOWEST,
            max_frequency=_HIGHEST,
            sampling_rate=RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )

"""Kaldi's filter banks: the values are tested with AST and SSLAM; here lengths and frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palscope.audio._fbank import kaldi_fbank, kaldi_hz, windowed_fbank
from palscope.errors import AudioError

NOISE = (0.1 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 399, 400, 559, 560, 16_000])
def test_a_frame_for_every_10_ms_begun_and_zeros_where_no_window_is_whole(samples: int) -> None:
    whole = 1 + (samples - 400) // 160 if samples >= 400 else 0
    assert kaldi_fbank(NOISE[:samples], 32).shape == (32, whole)
    made = windowed_fbank(NOISE[:samples], 32, 1024)
    assert made.shape == (32, -(-samples // 160))
    heard = max(whole, 1)  # a clip under 25 ms is filled up with silence
    assert made[:, :heard].std() > 0 and not made[:, heard:].any()


def test_each_window_stands_by_itself() -> None:
    made = windowed_fbank(NOISE, 32, 100)
    parts = [windowed_fbank(NOISE[at : at + 16_000], 32, 100) for at in (0, 16_000)]
    assert torch.equal(made[:, :200], torch.cat(parts, dim=1))
    shifted = windowed_fbank(NOISE + 0.5, 32, 100)
    torch.testing.assert_close(made, shifted, atol=2e-2, rtol=0)


@pytest.mark.parametrize("hz", [300, 1000, 4000])
def test_a_tone_is_loudest_in_the_bin_of_its_frequency(hz: int) -> None:
    tone = np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32)
    loudest = int(kaldi_fbank(tone, 64).mean(1).argmax())
    low, high = kaldi_hz([loudest - 0.6, loudest + 0.6], 64)
    assert low < hz < high


def test_sound_that_cannot_be_used() -> None:
    for samples in (NOISE[:0], np.full(800, np.nan, np.float32), NOISE.reshape(2, -1)):
        with pytest.raises(AudioError):
            windowed_fbank(samples, 32, 100)

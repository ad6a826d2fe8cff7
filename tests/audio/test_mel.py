from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from palscope.audio import log_mel
from palscope.errors import AudioError

EXTRACTOR = WhisperFeatureExtractor()


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def padded_features(samples: np.ndarray) -> torch.Tensor:
    """The extractor's own output: 30 s, silence after the clip."""
    features = EXTRACTOR(samples, sampling_rate=16_000, return_tensors="pt")["input_features"][0]
    assert features.shape[1] == 3000
    return features


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 400, 3_000, 16_001, 80_000, 479_700])
def test_frames_are_the_first_of_the_extractors(samples: int):
    clip = noise(samples)
    features = log_mel(clip, EXTRACTOR)
    assert features.shape == (80, -(-samples // 160))
    torch.testing.assert_close(
        features, padded_features(clip)[:, : features.shape[1]], atol=1e-6, rtol=0
    )


def test_the_loudest_frame_may_stand_just_past_the_clip():
    # A click on the last sample is loudest in a frame that is cut off, yet it sets the range.
    clip = np.zeros(3200, np.float32)
    clip[-1] = 1.0
    clip[:1600] = 1e-4 * noise(1600)
    features = log_mel(clip, EXTRACTOR)
    expected = padded_features(clip)
    assert expected[:, 20].max() > expected[:, :20].max()
    torch.testing.assert_close(features, expected[:, :20], atol=1e-6, rtol=0)


def test_a_full_window_is_the_extractors():
    clip = noise(480_000)
    assert torch.equal(log_mel(clip, EXTRACTOR), padded_features(clip))


def test_later_sound_never_changes_an_earlier_window():
    long = noise(480_000 * 2 + 8_000)
    long[480_000:] *= 100
    features = log_mel(long, EXTRACTOR)
    assert features.shape == (80, 6050)
    assert torch.equal(features[:, :3000], log_mel(long[:480_000], EXTRACTOR))
    assert torch.equal(features[:, 6000:], log_mel(long[960_000:], EXTRACTOR))


def test_silence_is_finite_and_even():
    features = log_mel(np.zeros(1600, np.float32), EXTRACTOR)
    assert torch.equal(features, torch.full((80, 10), -1.5))


def test_more_mel_bins():
    assert log_mel(noise(1600), WhisperFeatureExtractor(feature_size=128)).shape == (128, 10)


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((10, 2), np.float32), "mono"),
        (np.array([0, np.nan], np.float32), "NaN"),
    ],
)
def test_what_is_no_sound_is_refused(samples: np.ndarray, says: str):
    with pytest.raises(AudioError, match=says):
        log_mel(samples, EXTRACTOR)

from __future__ import annotations

import time

import numpy as np
import pytest

from palscope.audio._compose import LabelledSpan, Scene, level
from palscope.datasets import _augment as module
from palscope.datasets._augment import (
    add_noise,
    augment,
    change_speed,
    limit_band,
    mu_law,
    pad,
)

RATE = 16_000


def white(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def power_above(samples: np.ndarray, hertz: float) -> float:
    """Share of the power that lies above a frequency."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    return float(spectrum[np.fft.rfftfreq(len(samples), 1 / RATE) > hertz].sum() / spectrum.sum())


def burst_scene() -> Scene:
    samples = np.zeros(2 * RATE, dtype=np.float32)
    samples[RATE : RATE + 8_000] = white(0.5)
    return Scene(samples, (LabelledSpan("dog", 1.0, 1.5),))


def test_band_limit_removes_what_lies_above_and_keeps_the_length() -> None:
    samples = white(1.0)
    assert power_above(samples, 4_300) > 0.4
    narrow = limit_band(samples, 8_000)
    assert power_above(narrow, 4_300) < 0.01
    assert narrow.shape == samples.shape and narrow.dtype == np.float32


def test_speed_changes_length_and_times_together() -> None:
    faster = change_speed(burst_scene(), 1.05)
    assert faster.seconds == pytest.approx(2.0 / 1.05, abs=1e-3)
    assert faster.spans[0].start == pytest.approx(1.0 / 1.05)
    inside = faster.samples[round(faster.spans[0].start * RATE) : round(faster.spans[0].end * RATE)]
    assert np.sum(inside**2) > 0.99 * np.sum(faster.samples**2)


def test_pad_moves_the_times() -> None:
    padded = pad(burst_scene(), before=0.25, after=0.5)
    assert padded.seconds == 2.75
    assert padded.spans[0] == ("dog", 1.25, 1.75)
    assert np.flatnonzero(padded.samples)[0] == pytest.approx(1.25 * RATE, abs=2)


@pytest.mark.parametrize("snr", [15.0, 40.0])
def test_noise_has_the_stated_level(snr: float) -> None:
    samples = white(2.0)
    noise = add_noise(samples, snr, np.random.default_rng(0)) - samples
    assert 20 * np.log10(level(samples) / noise.std()) == pytest.approx(snr, abs=1.0)


def test_mu_law_is_coarse_but_close() -> None:
    samples = white(0.5)
    coded = mu_law(samples)
    assert len(np.unique(coded)) <= 255
    assert 25 < 10 * np.log10(np.mean(samples**2) / np.mean((samples - coded) ** 2)) < 45


def test_augment_follows_its_generator_and_keeps_the_sound_in_its_span() -> None:
    for seed in range(60):
        first = augment(burst_scene(), np.random.default_rng(seed))
        again = augment(burst_scene(), np.random.default_rng(seed))
        np.testing.assert_array_equal(first.samples, again.samples)
        assert first.samples.dtype == np.float32
        assert np.isfinite(first.samples).all() and np.abs(first.samples).max() <= 1
        span = first.spans[0]
        inside = first.samples[round(span.start * RATE) : round(span.end * RATE)]
        assert np.sum(inside**2) > 0.75 * np.sum(first.samples**2)


def test_augment_leaves_silence_silent_and_fits_the_limit() -> None:
    silent = Scene(np.zeros(RATE, dtype=np.float32), (LabelledSpan("none", 0.0, 1.0),))
    long = Scene(white(5.5), (LabelledSpan("rain", 0.0, 5.5),))
    for seed in range(20):
        assert not augment(silent, np.random.default_rng(seed)).samples.any()
        assert augment(long, np.random.default_rng(seed)).seconds <= module.MAX_SECONDS + 1e-3


def test_every_chain_is_given_to_every_domain() -> None:
    """The spoken digits stop at 4 kHz; so must a good part of anything else."""
    clips = [augment(burst_scene(), np.random.default_rng(seed)).samples for seed in range(200)]
    narrow = np.mean([power_above(clip, 4_600) < 0.05 for clip in clips])
    assert 0.1 < narrow < 0.6


def test_augment_is_fast_enough_to_feed_a_trainer() -> None:
    clip = Scene(white(5.0), (LabelledSpan("rain", 0.0, 5.0),))
    augment(clip, np.random.default_rng(0))  # draws the noise once
    start = time.process_time()
    for seed in range(50):
        augment(clip, np.random.default_rng(seed))
    assert (time.process_time() - start) / 50 < 0.02  # about 1 ms; roomy for a busy machine

"""The spectrogram's picture: the right pixel at the right second and frequency."""

from __future__ import annotations

from typing import Any

import numpy as np

from palscope.audio import Waveform
from palscope.plots._spectrogram import mel_image


def test_a_tone_lies_at_its_frequency(waveform: Any) -> None:
    image = mel_image(waveform)
    loudest = int(image.values.mean(1).argmax())
    tick = dict(zip(image.tick_labels, image.ticks, strict=True))["1"]
    assert abs(loudest - tick) <= 1


def test_a_click_lies_at_its_second() -> None:
    for seconds, at in ((1, 0.25), (25, 17.0)):
        samples = np.zeros(seconds * 16_000, np.float32)
        samples[int(at * 16_000)] = 1
        image = mel_image(Waveform(samples, 16_000, "click"))
        column = int(image.values.mean(0).argmax())
        assert abs(image.first + column * image.step - at) <= 2 * image.step
        assert image.values.shape[1] <= 1000 and image.seconds == seconds


def test_other_sample_rates_are_resampled() -> None:
    times = np.arange(44_100) / 44_100
    samples = np.sin(2000 * np.pi * times).astype(np.float32)
    image = mel_image(Waveform(samples, 44_100, "tone"))
    tick = dict(zip(image.tick_labels, image.ticks, strict=True))["1"]
    assert abs(int(image.values.mean(1).argmax()) - tick) <= 1

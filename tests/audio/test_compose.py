from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope.audio._compose import (
    LabelledSpan,
    Scene,
    active_part,
    at_level,
    crop,
    join,
    level,
    overlay,
    scene,
    trim,
)

RATE = 16_000


def tone(seconds: float, amplitude: float = 0.1) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def test_active_part_leaves_out_silence_around() -> None:
    samples = np.concatenate([silence(0.5), tone(1.0), silence(0.3)])
    assert active_part(samples) == (8_000, 24_000)
    assert len(trim(samples)) == RATE
    assert active_part(silence(0.2)) == (0, 3_200)


@given(seed=st.integers(0, 10_000), seconds=st.floats(0.5, 4.0))
@settings(max_examples=40, deadline=None)
def test_crop_never_loses_the_sound(seed: int, seconds: float) -> None:
    samples = np.concatenate([silence(2.5), tone(0.5), silence(2.0)])
    window = crop(samples, seconds, np.random.default_rng(seed))
    assert len(window) == round(seconds * RATE)
    heard = np.abs(window).sum() / np.abs(samples).sum()
    assert heard >= 0.49


def test_crop_of_a_steady_sound_starts_anywhere_and_keeps_short_clips() -> None:
    samples = tone(5.0)
    starts = {crop(samples, 2.0, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(starts) > 5
    assert crop(tone(1.0), 2.0, np.random.default_rng(0)).shape == (RATE,)


def test_join_keeps_the_times() -> None:
    parts = [scene("three", tone(0.4)), scene("seven", tone(0.5))]
    clip = join(parts, [0.25])
    assert clip.seconds == pytest.approx(0.4 + 0.25 + 0.5)
    assert [span.label for span in clip.spans] == ["three", "seven"]
    assert clip.spans[1].start == pytest.approx(0.65)
    assert np.abs(clip.samples[round(0.41 * RATE) : round(0.64 * RATE)]).max() == 0
    with pytest.raises(ValueError):
        join(parts, [0.1, 0.1])


def test_levels_are_those_of_the_sound_and_not_of_its_silence() -> None:
    samples = np.concatenate([tone(1.0), silence(3.0)])
    assert level(samples) == pytest.approx(0.1 / np.sqrt(2), rel=0.02)
    assert level(at_level(samples, 0.03)) == pytest.approx(0.03, rel=1e-3)
    assert level(at_level(silence(0.5), 0.03)) == 0


def test_overlay_sets_the_level_and_places_the_shorter_one() -> None:
    front = Scene(tone(0.5), (LabelledSpan("seven", 0.0, 0.5),))
    back = Scene(tone(2.0, 0.5), (LabelledSpan("rain", 0.0, 2.0),))
    clip = overlay(front, back, back_db=-12.0, rng=np.random.default_rng(3))
    assert clip.seconds == 2.0
    spoken, rain = clip.spans
    assert rain == ("rain", 0.0, 2.0)
    assert spoken.end - spoken.start == pytest.approx(0.5)
    outside = np.ones(len(clip.samples), dtype=bool)
    outside[round(spoken.start * RATE) : round(spoken.end * RATE)] = False
    quiet = np.sqrt(np.mean(clip.samples[outside] ** 2))
    assert 20 * np.log10(quiet / level(front.samples)) == pytest.approx(-12.0, abs=0.2)

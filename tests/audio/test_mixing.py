from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope.audio import load_audio
from palscope.audio._told import told
from palscope.errors import AudioError, AudioWarning
from tests.audio.encoders import chirp, encode

RATE = 16_000


@settings(max_examples=20, deadline=None)
@given(
    scale=st.sampled_from([2**7, 2**15, 2**23, 2**31]),
    level=st.floats(0.2, 1),
    seed=st.integers(0, 99),
)
def test_floats_on_the_scale_of_integers_are_told(scale: int, level: float, seed: int) -> None:
    samples = level * np.clip(np.random.default_rng(seed).normal(0, 0.2, 4000), -1, 1)
    loaded = load_audio(samples, native_rate=RATE)
    np.testing.assert_array_equal(loaded.samples, samples.astype(np.float32))
    for scaled in (samples * scale, np.rint(samples * scale)):
        with pytest.raises(AudioError, match="look like integers held as floats"):
            load_audio(scaled, native_rate=RATE)
        with pytest.raises(AudioError, match="full scale is 1"):
            load_audio(encode(scaled[:, None], RATE, "wav float"))


def test_quiet_whole_numbers_are_told_and_loud_mixes_are_not() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(AudioError, match="look like integers"):
        load_audio(rng.integers(-5, 6, 1000).astype(np.float32), native_rate=RATE)
    loud = rng.normal(0, 1.5, 8000).astype(np.float32)
    np.testing.assert_array_equal(load_audio(loud, native_rate=RATE).samples, loud)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_wide_integers_that_hold_sixteen_bits_are_told(dtype: type) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 1000)
    with pytest.raises(AudioError, match="give int16"):
        load_audio(samples.astype(dtype), native_rate=RATE)
    assert not load_audio(np.zeros(100, np.int32), native_rate=RATE).samples.any()


@settings(max_examples=20, deadline=None)
@given(
    channels=st.sampled_from([2, 4, 6]),
    mismatch=st.floats(0, 0.2),
    offset=st.floats(0, 0.5),
    quiet=st.sampled_from([1.0, 1e-3]),
)
def test_channels_that_cancel_are_told(
    channels: int, mismatch: float, offset: float, quiet: float
) -> None:
    one = chirp(RATE, 1.0)[:, 0]
    signs = np.tile([1.0, -1.0 + mismatch], channels // 2)
    samples = quiet * one[:, None] * signs + offset  # a constant offset does not hide it
    with pytest.raises(AudioError, match="opposite phase"):
        load_audio(samples, native_rate=RATE)
    with pytest.raises(AudioError, match="opposite phase"):
        load_audio(encode(samples / 2, RATE, "wav float"))


@settings(max_examples=30, deadline=None)
@given(channels=st.integers(2, 8), alone=st.booleans(), seed=st.integers(0, 999))
def test_channels_that_do_not_cancel_are_not_told(channels: int, alone: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.1, (RATE, channels))  # independent of each other
    if alone:
        samples[:, 1:] = 0
    loaded = load_audio(samples, native_rate=RATE)
    np.testing.assert_allclose(loaded.samples, samples.mean(1), atol=1e-6)


def test_a_stretch_in_which_channels_cancel_is_warned_of() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (5 * RATE, 2))
    samples[2 * RATE : 3 * RATE, 1] = -samples[2 * RATE : 3 * RATE, 0]
    with pytest.warns(AudioWarning, match=r"cancel each other in 1\.0 s, first at 2\.0 s"):
        load_audio(samples, native_rate=RATE)
    with pytest.warns(AudioWarning, match=r"cancel each other in 1\.\d s, first at 2\.\d s"):
        load_audio(encode(samples, RATE, "flac"))
    samples[2 * RATE : 3 * RATE, 1] *= 0.3
    load_audio(samples, native_rate=RATE)  # in part only


def test_clipping_and_silence_are_told_to_who_listens_and_warned_of_nowhere() -> None:
    time = np.arange(RATE) / RATE
    sine = np.sin(2 * np.pi * 100 * time)
    quiet = (2**14 * sine).astype(np.int16)
    cut = np.clip(2**16 * sine, -(2**15), 2**15 - 1).astype(np.int16)
    cut[: RATE // 2] = quiet[: RATE // 2]
    share = np.mean(np.abs(2**16 * sine[RATE // 2 :]) > 2**15) / 2  # of the second
    expected = {
        "is clipped for 3": cut,
        "first at 0.50 s: what was louder is cut off": cut,
        "reaches full scale for 3": np.where(np.arange(RATE) < RATE // 2, 0.5 * sine, 2 * sine),
        "silent: all of its samples are 0": np.zeros(RATE, np.int16),
        "next to silent: its loudest sample is 80 dB below": 1e-4 * sine,
    }
    assert round(1000 * share) in range(300, 340)
    for words, samples in expected.items():
        load_audio(samples, native_rate=RATE)  # warnings are errors here
        with told() as heard:
            load_audio(samples, native_rate=RATE)
        assert len(heard) == 1 and words in heard[0], (words, heard)
    with told() as heard:
        load_audio(quiet, native_rate=RATE)
    assert heard == []


def test_who_listens_is_told_what_others_are_warned_of() -> None:
    one = chirp(RATE, 1.0)[:, 0]
    samples = np.stack([one, np.where(np.arange(RATE) < RATE // 2, -one, one)], 1)
    with pytest.warns(AudioWarning) as warned:
        load_audio(samples, native_rate=RATE)
    with told() as heard:
        load_audio(samples, native_rate=RATE)
    assert heard == [str(each.message) for each in warned]

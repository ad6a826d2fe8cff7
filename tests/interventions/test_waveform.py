"""Edits of the sound itself."""

from __future__ import annotations

import numpy as np
import pytest

from palscope.audio import Waveform
from palscope.errors import AudioError
from palscope.interventions import Sound, edit_waveform
from tests.hooks.conftest import noise, tone

CLIP = Waveform(noise(1.0), 16_000, "noise")


def test_only_the_seconds_asked_for_change() -> None:
    silent = edit_waveform(CLIP, Sound(0.25, 0.5), np.zeros_like)
    assert not silent.samples[4000:8000].any()
    assert np.array_equal(silent.samples[:4000], CLIP.samples[:4000])
    assert np.array_equal(silent.samples[8000:], CLIP.samples[8000:])
    assert CLIP.samples[4000:8000].any()  # the clip itself is as it was


def test_another_clip_gives_the_same_seconds_of_its_own() -> None:
    other = Waveform(tone(1.0), 16_000, "tone")
    swapped = edit_waveform(CLIP, Sound(0.5), other)
    assert np.array_equal(swapped.samples[8000:], other.samples[8000:])
    assert np.array_equal(swapped.samples[:8000], CLIP.samples[:8000])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(AudioError, match=r"outside of noise, which is 1\.000 s"):
        edit_waveform(CLIP, Sound(0.5, 1.2), np.zeros_like)
    with pytest.raises(AudioError, match="no streams"):
        edit_waveform(CLIP, Sound(0.5, stream="frames"), np.zeros_like)
    with pytest.raises(AudioError, match="at 8000 Hz"):
        edit_waveform(CLIP, Sound(0.5), Waveform(tone(1.0), 8000, "tone"))
    with pytest.raises(AudioError, match="not finite"):
        edit_waveform(CLIP, Sound(0.5), lambda old: old * np.nan)
    with pytest.raises(AudioError, match=r"of \(8000,\)"):
        edit_waveform(CLIP, Sound(0.5), lambda old: old[:-1])

"""Qwen3-ASR: where its words stand, and clips that are filled up to half a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import palscope
from palscope._hooks import HookedAudioModel
from tests.published.contract import noise
from tests.published.tiny import qwen3_asr as tiny

WORDS = "what do you hear ?"


@pytest.fixture(scope="module")
def hooked() -> HookedAudioModel:
    return palscope.load(tiny.model(), processor=tiny.processor())


def test_a_question_is_what_the_class_calls_the_prompt(hooked: Any) -> None:
    processor = hooked.processor
    (wanted,) = tiny.processor().apply_transcription_request(
        noise(0.7), prompt=WORDS, tokenize=False
    )
    assert processor.chat(WORDS) == wanted and WORDS in wanted
    processor.system = "say in this sound"
    try:
        assert processor.chat(WORDS) == wanted.replace(WORDS, f"say in this sound\n{WORDS}")
    finally:
        processor.system = None


def test_a_short_clip_is_heard_with_the_silence_up_to_half_a_second(hooked: Any) -> None:
    clip = noise(0.2)
    short = hooked.inputs(WORDS, clip)
    filled = hooked.inputs(WORDS, np.pad(clip, (0, 8000 - len(clip))))
    assert all(bool((short[name] == filled[name]).all()) for name in filled)
    spans = hooked.layout(short).seconds[short["input_ids"] == hooked.model.audio_token_id]
    assert spans.shape == (7, 2) and float(spans[-1, 1]) == pytest.approx(0.5)

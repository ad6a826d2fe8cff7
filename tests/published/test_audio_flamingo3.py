"""What is particular to Audio Flamingo 3 and Music Flamingo, beside the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import palscope
from palscope.errors import CheckpointError
from tests.published.contract import RATE, noise
from tests.published.tiny import audio_flamingo3, music_flamingo

ONE_A_TURN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] | selectattr('type', 'equalto', 'audio') | list %}<sound>{% endif %}"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ item['text'] }}{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
"""As published: however many clips a turn has, there is one place for them."""


def test_several_clips_have_as_many_places_where_the_template_has_one() -> None:
    own = audio_flamingo3.processor()
    own.chat_template = ONE_A_TURN
    hooked = palscope.load(audio_flamingo3.model(), processor=own)
    for clips in range(3):
        text = hooked.processor.chat("which was louder ?", clips)
        assert text.count("<sound>") == clips
        assert ("\n" + "<sound>" * clips + "which was louder ?<|im_end|>") in text
    inputs: Any = hooked.inputs("which was louder ?", noise(0.4), noise(0.6))
    assert hooked.layout(inputs).clip_row == (0, 0)


@torch.no_grad()
def test_a_window_without_tokens_is_left_out() -> None:
    """The class itself fails on such a clip, or gives the next one another clip's time."""
    hooked: Any = palscope.load(music_flamingo.model(), processor=music_flamingo.processor())
    clip, behind = noise(30.01), noise(1.0, 1)
    inputs = hooked.processor([hooked.processor.chat("?", 2)], [clip, behind], sampling_rate=RATE)
    assert inputs["input_features"].shape[-1] == 6000
    tokens = hooked.encode_audio(inputs).streams["frames"]
    alone = hooked.processor(
        [hooked.processor.chat("?", 2)], [clip[: 30 * RATE], behind], sampling_rate=RATE
    )
    assert torch.equal(tokens, hooked.encode_audio(alone).streams["frames"])


def test_angles_in_half_precision_are_refused() -> None:
    model: Any = music_flamingo.model().to(torch.bfloat16)
    with pytest.raises(CheckpointError, match="dtype="):
        palscope.load(model, processor=music_flamingo.processor())

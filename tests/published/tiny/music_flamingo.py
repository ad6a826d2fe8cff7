"""Music Flamingo, tiny and random: the published classes, their real time structure, no files."""

from __future__ import annotations

import torch
from transformers import (
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    MusicFlamingoProcessor,
    WhisperFeatureExtractor,
)

from tests.published.tiny import audio_flamingo3
from tests.published.tiny.audio_flamingo3 import CHAT_TEMPLATE, ID

__all__ = ["CHAT_TEMPLATE", "ID", "config", "model", "processor"]


def config() -> MusicFlamingoConfig:
    """Audio Flamingo 3's, and a rotary embedding of time on 16 of the tower's 40 dimensions.

    As in the published one: a fifth of the width for the window, a fifth for the time in it.
    """
    return MusicFlamingoConfig(
        audio_config=audio_flamingo3.audio_config(40),
        text_config=audio_flamingo3.text_config(),
        audio_token_id=ID["<sound>"],
        audio_bos_token_id=ID["<|sound_bos|>"],
        audio_eos_token_id=ID["<|sound_eos|>"],
        rope_parameters={"rope_type": "default", "rope_theta": 1200},
    )


def model(seed: int = 0) -> MusicFlamingoForConditionalGeneration:
    """Random weights, large enough that another sound gives other words."""
    torch.manual_seed(seed)
    made = MusicFlamingoForConditionalGeneration(config())
    audio_flamingo3.enlarge(made)
    return made.eval()


def processor() -> MusicFlamingoProcessor:
    """The published processor with a tokenizer of bytes; any text comes back as it went in."""
    return MusicFlamingoProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=128, return_attention_mask=True),
        tokenizer=audio_flamingo3.tokenizer(),
        chat_template=CHAT_TEMPLATE,
    )

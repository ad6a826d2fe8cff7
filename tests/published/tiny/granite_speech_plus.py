"""A tiny Granite Speech Plus: Granite Speech without an adapter, whose projector reads two layers.

As in the published one, the adapter is merged. Of the conformer's two layers both are read; the
lower one is the middle, whose output the class changes in place after it was kept.
"""

from __future__ import annotations

import torch
from transformers import GraniteSpeechPlusConfig, GraniteSpeechPlusForConditionalGeneration

from tests.published.tiny import granite_speech
from tests.published.tiny.granite_speech import AUDIO_TOKEN_ID, processor

__all__ = ["AUDIO_TOKEN_ID", "config", "model", "processor"]


def config() -> GraniteSpeechPlusConfig:
    given = granite_speech.config().to_dict()
    given |= {"has_lora_adapter": False, "model_type": "granite_speech_plus"}
    given["encoder_config"] |= {
        "model_type": "granite_speech_plus_encoder",
        "cat_hidden_layers": [1],
    }
    given["projector_config"]["encoder_hidden_size"] *= 2
    return GraniteSpeechPlusConfig(**given)


def model(seed: int = 0) -> GraniteSpeechPlusForConditionalGeneration:
    torch.manual_seed(seed)
    return granite_speech.enlarge(GraniteSpeechPlusForConditionalGeneration(config()))

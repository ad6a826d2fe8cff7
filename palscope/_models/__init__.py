"""The Hugging Face trio: config, model and processor, registered with the Auto classes."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

from palscope._models.cache import AudioCache
from palscope._models.clips import AudioClips
from palscope._models.config import PalscopeConfig
from palscope._models.modeling import PalscopeForConditionalGeneration
from palscope._models.processor import AUDIO_TOKEN, PalscopeProcessor
from palscope._models.streaming import AudioStream
from palscope.encoders._front_end import EncoderFeatureExtractor

_auto: Any
AutoConfig.register(PalscopeConfig.model_type, PalscopeConfig, exist_ok=True)
for _auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
    _auto.register(PalscopeConfig, PalscopeForConditionalGeneration, exist_ok=True)
AutoFeatureExtractor.register(PalscopeConfig, EncoderFeatureExtractor, exist_ok=True)
AutoProcessor.register(PalscopeConfig, PalscopeProcessor, exist_ok=True)

__all__ = [
    "AUDIO_TOKEN",
    "AudioCache",
    "AudioClips",
    "AudioStream",
    "PalscopeConfig",
    "PalscopeForConditionalGeneration",
    "PalscopeProcessor",
]

"""Encoders: one file each, one registry."""

from __future__ import annotations

from palscope.encoders.base import (
    Block,
    ClipFeatures,
    Component,
    Encoder,
    EncoderConfig,
    EncoderOutput,
    EncoderTokens,
    WindowedEncoder,
)
from palscope.encoders.front_end import EncoderFeatureExtractor
from palscope.encoders.registry import (
    build_encoder,
    encoder_config,
    encoder_kinds,
    register_encoder,
)
from palscope.encoders.several import Several, SeveralConfig
from palscope.encoders.weights import load_whisper_encoder
from palscope.encoders.whisper import WhisperEncoder, WhisperEncoderConfig

register_encoder(WhisperEncoderConfig, WhisperEncoder)
register_encoder(SeveralConfig, Several)

__all__ = [
    "Block",
    "ClipFeatures",
    "Component",
    "Encoder",
    "EncoderConfig",
    "EncoderFeatureExtractor",
    "EncoderOutput",
    "EncoderTokens",
    "Several",
    "SeveralConfig",
    "WhisperEncoder",
    "WhisperEncoderConfig",
    "WindowedEncoder",
    "build_encoder",
    "encoder_config",
    "encoder_kinds",
    "load_whisper_encoder",
    "register_encoder",
]

"""Audio encoders: one file each, one registry."""

from __future__ import annotations

from palscope.encoders.base import Encoder, EncoderConfig, EncoderOutput
from palscope.encoders.registry import build_encoder, encoder_config
from palscope.encoders.weights import load_whisper_encoder
from palscope.encoders.whisper import WhisperEncoder, WhisperEncoderConfig

__all__ = [
    "Encoder",
    "EncoderConfig",
    "EncoderOutput",
    "WhisperEncoder",
    "WhisperEncoderConfig",
    "build_encoder",
    "encoder_config",
    "load_whisper_encoder",
]

"""Encoders: one file each, one registry."""

from __future__ import annotations

from palscope.encoders._af_whisper import AFWhisperConfig, AFWhisperEncoder
from palscope.encoders._ast import ASTConfig, ASTEncoder
from palscope.encoders._base import (
    Encoder,
    EncoderOutput,
    build_encoder,
)
from palscope.encoders._clap import ClapConfig, ClapEncoder
from palscope.encoders._config import ClipFeatures, EncoderConfig
from palscope.encoders._eat import EATConfig, EATEncoder, SSLAMConfig
from palscope.encoders._registry import encoder_config, register_encoder
from palscope.encoders._several import Several, SeveralConfig
from palscope.encoders._tower import Block, Component
from palscope.encoders._vision import ClipVisionConfig, SiglipVisionConfig, VisionEncoder
from palscope.encoders._wav2vec2 import HubertConfig, SampleEncoder, Wav2Vec2Config, WavLMConfig
from palscope.encoders._weights import load_encoder, save_encoder
from palscope.encoders._whisper import WhisperEncoder, WhisperEncoderConfig

for _config, _encoder in (
    (WhisperEncoderConfig, WhisperEncoder),
    (AFWhisperConfig, AFWhisperEncoder),
    (ClapConfig, ClapEncoder),
    (SSLAMConfig, EATEncoder),
    (EATConfig, EATEncoder),
    (ASTConfig, ASTEncoder),
    (Wav2Vec2Config, SampleEncoder),
    (HubertConfig, SampleEncoder),
    (WavLMConfig, SampleEncoder),
    (ClipVisionConfig, VisionEncoder),
    (SiglipVisionConfig, VisionEncoder),
    (SeveralConfig, Several),
):
    register_encoder(_config, _encoder)

__all__ = [
    "Block",
    "ClipFeatures",
    "Component",
    "Encoder",
    "EncoderConfig",
    "EncoderOutput",
    "Several",
    "build_encoder",
    "encoder_config",
    "load_encoder",
    "register_encoder",
    "save_encoder",
]

"""Encoders by kind, the name that a checkpoint's settings carry."""

from __future__ import annotations

from typing import Any

from palscope.encoders.base import Encoder, EncoderConfig
from palscope.encoders.whisper import WhisperEncoder, WhisperEncoderConfig
from palscope.errors import CheckpointError

_ENCODERS: dict[str, tuple[type[EncoderConfig], type[Encoder]]] = {
    WhisperEncoderConfig.kind: (WhisperEncoderConfig, WhisperEncoder),
}


def encoder_config(settings: dict[str, Any]) -> EncoderConfig:
    """Read settings (`EncoderConfig.to_dict`) as a config.

    Raises `CheckpointError` when their `kind` is no registered encoder.
    """
    return _lookup(settings.get("kind"))[0].from_dict(settings)


def build_encoder(config: EncoderConfig) -> Encoder:
    """Build the encoder of these settings, with random weights."""
    encoder: Any = _lookup(config.kind)[1]
    return encoder(config)


def _lookup(kind: str | None) -> tuple[type[EncoderConfig], type[Encoder]]:
    if kind not in _ENCODERS:
        raise CheckpointError(
            f"There is no encoder of kind {kind!r}; expected one of {', '.join(sorted(_ENCODERS))}."
        )
    return _ENCODERS[kind]

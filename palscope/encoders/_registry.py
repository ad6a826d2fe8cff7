"""Encoders by kind, the name that a checkpoint's settings carry."""

from __future__ import annotations

from typing import Any

from palscope.encoders._base import Encoder, EncoderConfig
from palscope.errors import CheckpointError

_ENCODERS: dict[str, tuple[type[EncoderConfig], type[Encoder]]] = {}


def register_encoder(config_class: type[EncoderConfig], encoder_class: type[Encoder]) -> None:
    """Make an encoder known by its config's `kind`, to checkpoints and processors.

    Registering the same two again changes nothing. Raises `CheckpointError` when another encoder
    has that kind.
    """
    kind = config_class.kind
    have = _ENCODERS.get(kind)
    # By name: a cell of a notebook that is run again makes the classes anew.
    if have is not None and [c.__qualname__ for c in have] != [
        config_class.__qualname__,
        encoder_class.__qualname__,
    ]:
        raise CheckpointError(
            f"The kind {kind!r} is {have[1].__qualname__}'s already; choose another name."
        )
    _ENCODERS[kind] = (config_class, encoder_class)


def encoder_kinds() -> tuple[str, ...]:
    """The kinds that are registered."""
    return tuple(_ENCODERS)


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
            " One of your own is made known by register_encoder."
        )
    return _ENCODERS[kind]

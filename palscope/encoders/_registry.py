"""Encoders by kind, the name that a checkpoint's settings carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from palscope._registry import add, find
from palscope.encoders._config import EncoderConfig


class EncoderEntry(NamedTuple):
    """The classes of one kind of encoder."""

    config_class: type[EncoderConfig]
    encoder_class: Callable[[Any], Any]
    """An `Encoder`, of these settings."""


_ENCODERS: dict[str, EncoderEntry] = {}


def register_encoder(config_class: type[EncoderConfig], encoder_class: type[nn.Module]) -> None:
    """Make an encoder known by its config's `kind`, to checkpoints and processors.

    Registering the same two again changes nothing. Raises `CheckpointError` when another encoder
    has that kind.
    """
    add(_ENCODERS, config_class.kind, EncoderEntry(config_class, encoder_class), "kind of encoder")


def encoder_kinds() -> tuple[str, ...]:
    """The kinds that are registered."""
    return tuple(_ENCODERS)


def encoder_config(settings: dict[str, Any]) -> EncoderConfig:
    """Read settings (`EncoderConfig.to_dict`) as a config.

    Raises `CheckpointError` when their `kind` is no registered encoder.
    """
    return find_encoder_classes(settings.get("kind")).config_class.from_dict(settings)


def find_encoder_classes(kind: str | None) -> EncoderEntry:
    """The classes of a kind. Raises `CheckpointError` when it is not registered."""
    hint = "One of your own is made known by register_encoder."
    return find(_ENCODERS, kind, "encoder of kind", hint=hint)

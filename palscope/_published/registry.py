"""Published classes by the model type of their checkpoints' configs."""

from __future__ import annotations

from typing import Any

import transformers
from packaging.version import Version

from palscope._published.family import PublishedFamily
from palscope._registry import add, find
from palscope.errors import CheckpointError

_FAMILIES: dict[str, type[PublishedFamily]] = {}


def register_published(family: type[PublishedFamily]) -> None:
    """Make a published class known by its `model_types`: `palscope.load` then opens its models.

    Registering the same again changes nothing. Raises `CheckpointError` when another class has one
    of the types.
    """
    for name in family.model_types:
        add(_FAMILIES, name, family, "model type")


def published_families() -> tuple[type[PublishedFamily], ...]:
    """The classes that are registered, each once."""
    return tuple(dict.fromkeys(_FAMILIES.values()))


def unread_prefixes() -> tuple[str, ...]:
    """Prefixes of tensors that no class loads: parts that neither hear nor write."""
    return tuple(prefix for family in published_families() for prefix in family.unread)


def published_class(model_type: str | None) -> type[PublishedFamily]:
    """The family of models of a type.

    Raises:
        CheckpointError: it is not registered, and the message names those that are; it is one of
            weights that cannot be opened, and the message says what to do; or the installed
            transformers is too old for it.
    """
    for each in published_families():
        if model_type in each.refused_types and model_type not in _FAMILIES:
            raise CheckpointError(f"model type {model_type!r}: {each.refused_types[model_type]}.")
    hint = "Or palscope's own. Another one is made known by register_published (docs/models.md)."
    family = find(_FAMILIES, model_type, "published class of model type", hint=hint)
    _check_transformers(family)
    return family


def published_family(config: Any) -> PublishedFamily:
    """The family of a published model's config. Raises `CheckpointError` as `published_class`."""
    return published_class(config.model_type)(config)


def _check_transformers(family: type[PublishedFamily]) -> None:
    have, least = transformers.__version__, family.least_transformers
    if Version(have) < Version(least):
        raise CheckpointError(
            f"{family.architecture} needs transformers {least} or newer; {have} is installed, "
            "which lacks it or computes it otherwise. Upgrade: pip install -U transformers."
        )

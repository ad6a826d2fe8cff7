"""What palscope raises and warns of: each message names the input, what was expected, what next."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AudioError",
    "AudioWarning",
    "BenchmarkError",
    "CheckpointError",
    "DataError",
    "HookError",
    "PalscopeError",
    "PromptError",
    "RecipeError",
    "RouteError",
]


class PalscopeError(ValueError):
    """Base of all errors that a user's input can cause."""


class AudioError(PalscopeError):
    """A sound that cannot be read or must not be used (corrupt, empty, NaN, too long)."""


class AudioWarning(UserWarning):
    """A sound that is read, but is odd in a way that may change results."""


class PromptError(PalscopeError):
    """A prompt whose text and audio do not fit together."""


class RouteError(PalscopeError):
    """A route that is malformed, or that a checkpoint has no weights for."""


class CheckpointError(PalscopeError):
    """Weights that are missing, foreign, unsafe or cannot be found."""


class HookError(PalscopeError):
    """A hook name that does not exist or cannot fire under the current route."""


class BenchmarkError(PalscopeError):
    """A benchmark's questions or predictions that cannot be read, or do not fit together."""


class RecipeError(PalscopeError):
    """A training recipe that cannot be read, or whose values make no training."""


class DataError(PalscopeError):
    """Training data that cannot be found or read, or too much of which is unusable."""


def short(value: Any, width: int = 60) -> str:
    """A value as it is written in Python, cut to `width` characters: for messages."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"

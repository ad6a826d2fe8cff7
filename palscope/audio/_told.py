"""What there is to tell of a sound while it is read: as a warning, or to someone who shows it."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from palscope.errors import AudioWarning

_listener: ContextVar[list[str] | None] = ContextVar("listener", default=None)


@contextmanager
def told() -> Generator[list[str]]:
    """Within, all that is told of sounds is put into this list, and nothing is warned of.

    `warnings.catch_warnings` would change the filters of the whole process, which the page's
    visitors share.
    """
    heard: list[str] = []
    before = _listener.set(heard)
    try:
        yield heard
    finally:
        _listener.reset(before)


def warn(message: str) -> None:
    """Tell what the sound may have lost: an `AudioWarning` where nobody listens."""
    heard = _listener.get()
    if heard is None:
        warnings.warn(message, AudioWarning, stacklevel=3)
    else:
        heard.append(message)


def note(message: str) -> None:
    """Tell what is as it was recorded, and worth knowing: nothing where nobody listens."""
    heard = _listener.get()
    if heard is not None:
        heard.append(message)

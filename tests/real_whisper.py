"""Whisper tiny.en with OpenAI's weights, for tests of what only a trained model does.

`make test` puts it on the machine; where pytest runs without it, such tests are skipped.
"""

from __future__ import annotations

import functools

import pytest

import palscope
from palscope._hooks import HookedAudioModel
from palscope.errors import CheckpointError

NAME = "openai/whisper-tiny.en"


@functools.cache
def folder() -> str | None:
    """Where it is; None where it is not on this machine."""
    try:
        return str(palscope.find_base(NAME))
    except CheckpointError:
        return None


def needed() -> str:
    """Its folder; skips the test that asks where there is none."""
    if (found := folder()) is None:
        pytest.skip(f"{NAME} is not on this machine: make .venv/.whisper fetches it")
    return found


@functools.cache
def opened() -> HookedAudioModel:
    """Opened once a process, for who leaves it as it was."""
    needed()
    return palscope.load(NAME)

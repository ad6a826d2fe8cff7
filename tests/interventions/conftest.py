"""A tiny hooked model and prompts whose sounds differ."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise

QUESTION = "which digit is spoken first?"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return vocabulary.tokenizer()


@pytest.fixture(scope="session")
def pal(tokenizer: Any) -> HookedAudioModel:
    """Frames as keys in layers 0 and 2 of four, a full summary of every three frames."""
    return make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]))


@pytest.fixture(scope="session")
def plits(tokenizer: Any) -> HookedAudioModel:
    return make_hooked(tokenizer, Route.plits(tiny.LAYERS))


def prompt(model: HookedAudioModel, seed: int = 0, seconds: float = 1.0) -> dict[str, Tensor]:
    return model.inputs(QUESTION, noise(seconds, seed))


def two_rows(model: HookedAudioModel) -> dict[str, Any]:
    """Two rows of different length, the first one padded; one clip (0.5 s) and two (0.75, 0.3)."""
    processor = model.processor
    texts = [processor.chat("what?"), processor.chat("which of the two came first?", clips=2)]
    clips = [noise(0.5), noise(0.75, 1), noise(0.3, 2)]
    return dict(processor(texts, clips, sampling_rate=16_000))

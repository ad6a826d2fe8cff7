"""A tiny hooked model of any family, with the demo's tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from palscope._hooks import HookedAudioModel
from palscope._models import PalscopeProcessor
from palscope._routing import Route
from tests import tiny, vocabulary


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return vocabulary.tokenizer()


def make_hooked(
    tokenizer: Any, route: Route | None = None, family: str = "llama", **changes: Any
) -> HookedAudioModel:
    model = tiny.model(route, family, vocab_size=tokenizer.vocab_size, **changes)
    ratios = [stream.ratio for stream in model.route.streams]
    processor = PalscopeProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer, 10, ratios)
    model.config.audio_token_id = processor.audio_token_id
    return HookedAudioModel(model, processor)


@pytest.fixture
def hooked(tokenizer: Any) -> HookedAudioModel:
    """PAL with LAL in layers 0 and 2 of four."""
    return make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]))


def tone(seconds: float, hertz: float = 440) -> np.ndarray:
    times = np.arange(int(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=int(seconds * 16_000))
    return (0.1 * samples).astype(np.float32)

"""Tiny hooked models with the demo's tokenizer, and input for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise

PAL = Route.pal(tiny.LAYERS, [0, 2])


@pytest.fixture(scope="session")
def make() -> Callable[..., HookedAudioModel]:
    def hooked(route: Route = PAL, family: str = "llama", **changes: Any) -> HookedAudioModel:
        return make_hooked(vocabulary.tokenizer(), route, family, **changes)

    return hooked


@pytest.fixture(scope="session")
def pal(make: Any) -> HookedAudioModel:
    """PAL with LAL in layers 0 and 2 of four."""
    return make()


def padded_batch(model: Any) -> dict[str, Any]:
    """Two rows of different length, the first one padded; one clip (0.5 s) and two (0.75, 0.3)."""
    processor = model.processor
    texts = [processor.chat("what?"), processor.chat("which of the two came first?", clips=2)]
    clips = [noise(0.5), noise(0.75, 1), noise(0.3, 2)]
    return dict(processor(texts, clips, sampling_rate=16_000))

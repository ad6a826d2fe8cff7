"""A tiny published model under hooks, and prompts whose sounds differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from palscope._hooks import HookedAudioModel, load
from tests.published.tiny import qwen2_audio


@pytest.fixture(scope="session")
def qwen2() -> HookedAudioModel:
    return load(qwen2_audio.model(), processor=qwen2_audio.processor())


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=round(seconds * 16_000))
    return (0.1 * samples).astype(np.float32)


def two_rows(model: HookedAudioModel) -> dict[str, Any]:
    """Two rows of different length, the first one padded; one clip (0.5 s) and two (0.75, 0.3)."""
    processor = model.processor
    texts = [processor.chat("what?"), processor.chat("which of the two came first?", clips=2)]
    clips = [noise(0.5), noise(0.75, 1), noise(0.3, 2)]
    return dict(processor(texts, clips, sampling_rate=16_000))

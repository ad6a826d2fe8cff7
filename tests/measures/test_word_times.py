"""Words' onsets from patterns: known ones, and openai-whisper's rule as transformers has it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.utils import GenerateEncoderDecoderOutput
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

from palscope.measures._word_times import risen_onsets, warped_onsets


def published(patterns: Any) -> Any:
    """Every token's time by transformers' own function."""
    heads, tokens, _ = patterns.shape
    crossed = (torch.tensor(patterns)[None],)
    given: Any = GenerateEncoderDecoderOutput(
        sequences=torch.zeros(1, 1), cross_attentions=(crossed,)
    )
    model: Any = SimpleNamespace(config=SimpleNamespace(decoder_layers=1, median_filter_width=7))
    rule: Any = WhisperGenerationMixin._extract_token_timestamps
    times = rule(model, given, [(0, head) for head in range(heads)], num_input_ids=0)
    return times[0, :tokens].numpy()


@pytest.mark.parametrize("sound", [3, 4, 60])
def test_the_warped_path_is_the_published_one(sound: int) -> None:
    rng = np.random.default_rng(sound)
    for tokens in (2, 9):  # of one the published rule has nothing to standardise over: NaN
        scores = rng.normal(size=(3, tokens, sound)) * 3
        patterns = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        patterns = patterns.astype(np.float32)
        got = warped_onsets(patterns, range(tokens), 0.02)
        np.testing.assert_allclose(got, published(patterns), atol=1e-6)


def test_onsets_of_a_diagonal_are_its_corners() -> None:
    pattern = np.zeros((2, 4, 40), dtype=np.float32)
    begins = [3, 12, 20, 33]
    for token, (first, last) in enumerate(zip(begins, [12, 20, 33, 40], strict=True)):
        pattern[:, token, first:last] = 1 / (last - first)
    np.testing.assert_allclose(risen_onsets(pattern, [0, 1, 3], 0.02), [0.06, 0.24, 0.66])
    np.testing.assert_allclose(warped_onsets(pattern, [1, 3], 0.02), [0.24, 0.66], atol=0.041)


def test_what_is_below_a_quarter_of_the_peak_is_before_the_word() -> None:
    pattern = np.array([[[0.0, 0.4, 0.11, 0.1, 0.15, 0.4, 0.3], [0.5, 0.3, 0.2, 0, 0, 0, 0]]])
    pattern[0, 0, 1] = 0.39  # another sound's, beyond the dip
    np.testing.assert_allclose(risen_onsets(pattern, [0, 1], 0.1), [0.4, 0.0])

"""A cached prompt goes on in the hooked model, fused and slow, by either name of a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._models.cache_names import NEW, OLD
from palscope._routing import Route
from tests import tiny
from tests.hooks.conftest import make_hooked, noise


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "phi3"])
@pytest.mark.parametrize("name", [OLD, NEW])
def test_a_word_behind_a_cached_prompt(tokenizer: Any, family: str, name: str) -> None:
    hooked = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), family)
    inputs = hooked.inputs("What is heard here?", noise(0.5))
    word = torch.tensor([[5]])
    longer = {**inputs, "input_ids": torch.cat([inputs["input_ids"], word], 1)}
    longer["attention_mask"] = torch.ones_like(longer["input_ids"])
    whole, kept = hooked.run_with_cache(longer)
    patterns = [key for key in kept if key.endswith("hook_pattern")]

    def cache() -> Any:
        return hooked.model(**inputs, use_cache=True).cache

    fused = hooked(word, **{name: cache()})
    slow, seen = hooked.run_with_cache(word, **{name: cache()})
    for got in (fused, slow):
        torch.testing.assert_close(got[:, -1], whole[:, -1])
    assert len(patterns) == tiny.LAYERS
    for pattern in patterns:
        torch.testing.assert_close(seen[pattern][:, :, -1], kept[pattern][:, :, -1])

"""The cache that grows in place: what Hugging Face's holds, and a way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from palscope.errors import PalscopeError
from palscope.models.growing import GrowingCache, GrowingLayer
from palscope.routing import Route
from tests import tiny


def states(tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 1, 2, tokens, 4, generator=generator).unbind()
    return keys, values


def test_it_holds_what_a_dynamic_layer_holds() -> None:
    growing, dynamic = GrowingLayer(), DynamicLayer()
    for seed, tokens in enumerate([3, 1, 0, 5, 1, 1, 40, 2]):
        new = states(tokens, seed)
        for got, wanted in zip(growing.update(*new), dynamic.update(*new), strict=True):
            assert torch.equal(got, wanted)
        assert growing.get_seq_length() == dynamic.get_seq_length()


def test_it_copies_in_proportion_to_its_length() -> None:
    layer: Any = GrowingLayer()
    copied = steps = 0
    for step in range(4000):
        before = layer._buffers[0].data_ptr() if step else 0
        layer.update(*states(1, 0))
        if step and layer._buffers[0].data_ptr() != before:
            copied += layer.get_seq_length() - 1
            steps += 1
    assert copied < 5 * 4000 and steps < 40  # copying at each step would be 8 million
    assert layer._buffers[0].shape[2] <= 1.25 * 4000


def test_what_was_given_is_not_held() -> None:
    layer = GrowingLayer()
    keys, values = states(3, 0)
    layer.update(keys, values)
    keys.zero_()
    assert layer.keys.abs().min() > 0


def test_the_store_may_be_another_device() -> None:
    # No second device is sure to be here: meta tensors show where the buffers would be.
    layer: Any = GrowingLayer(torch.device("meta"))
    layer.lazy_initialization(*states(3, 0))
    assert layer._buffers[0].device.type == "meta" and layer.device.type == "cpu"
    assert layer._larger(layer._buffers[0], 0, 9).device.type == "meta"
    kept: Any = GrowingCache(torch.device("cpu"))
    kept.update(*states(3, 0), 0)
    assert kept.layers[0]._store == torch.device("cpu")


@torch.no_grad()
def test_a_cache_goes_back_to_its_mark() -> None:
    made: Any = tiny.model(Route.pal(4, [0, 2]))
    batch = tiny.batch([[37]])
    cache = GrowingCache()
    empty = cache.mark()
    made(**batch, past_key_values=cache)
    mark, size = cache.mark(), cache.nbytes
    word = torch.tensor([[5, 6, 7]])
    wanted = made(input_ids=word, past_key_values=cache).logits
    for _ in range(3):
        made(input_ids=torch.randint(3, 80, (1, 50)), past_key_values=cache)  # buffers move
        assert cache.nbytes > size
        cache.back_to(mark)
        assert cache.nbytes == size
        assert torch.equal(made(input_ids=word, past_key_values=cache).logits, wanted)
        cache.back_to(mark)
    cache.back_to(empty)
    assert cache.nbytes == 0 and cache.layout is None
    made(**batch, past_key_values=cache)
    assert torch.equal(made(input_ids=word, past_key_values=cache).logits, wanted)


def test_copies_of_its_row_are_refused() -> None:
    for call in (lambda c: c.batch_repeat_interleave(2), lambda c: c.reorder_cache(torch.zeros(1))):
        with pytest.raises(PalscopeError, match="has one row"):
            call(GrowingCache())

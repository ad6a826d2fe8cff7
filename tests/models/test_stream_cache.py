"""The cache that grows in place: what Hugging Face's holds, and a way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from palscope._models.stream_cache import StreamCache, StreamLayer
from palscope._routing import Route
from palscope.errors import PalscopeError
from tests import tiny


def states(tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 1, 2, tokens, 4, generator=generator).unbind()
    return keys, values


def test_it_holds_what_a_dynamic_layer_holds() -> None:
    growing, dynamic = StreamLayer(), DynamicLayer()
    for seed, tokens in enumerate([3, 1, 0, 5, 1, 1, 40, 2]):
        new = states(tokens, seed)
        for got, wanted in zip(growing.update(*new), dynamic.update(*new), strict=True):
            assert torch.equal(got, wanted)
        assert growing.get_seq_length() == dynamic.get_seq_length()


@pytest.mark.parametrize("piece", [1, 3])
def test_it_copies_in_proportion_to_its_length(piece: int) -> None:
    layer = StreamLayer()
    layer.update(*states(piece, 0))
    copied = 0
    for _ in range(1500):
        assert layer.keys is not None
        held, before = layer.get_seq_length(), layer.keys.data_ptr()
        layer.update(*states(piece, 0))
        copied += held * (layer.keys.data_ptr() != before)
        assert layer.keys.untyped_storage().nbytes() <= 1.26 * layer.keys.nbytes + 400
    assert copied < 5 * 1500 * piece  # copying at each step would be a million


def test_the_store_may_be_another_device() -> None:
    # No second device is sure to be here: meta tensors show where keys and values are kept.
    layer = StreamLayer(torch.device("meta"))
    with pytest.raises(NotImplementedError, match="meta"):  # nothing comes back from there
        layer.update(*states(3, 0))
    assert layer.keys is not None and layer.keys.device.type == "meta"


@torch.no_grad()
def test_a_cache_goes_back_to_its_mark() -> None:
    made: Any = tiny.model(Route.pal(4, [0, 2]))
    batch = tiny.batch([[37]])
    cache = StreamCache()
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
            call(StreamCache())

"""A cache's buffers hold what was put in, whatever is done to their rows in between."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palscope._models.cache import GrowingLayer
from palscope._routing import Route
from tests import tiny

ROOM = GrowingLayer._ROOM

STEPS = st.one_of(
    st.tuples(st.just("words"), st.sampled_from([1, 1, 1, 2, 5, ROOM + 1])),
    st.tuples(st.just("many"), st.integers(1, ROOM + 2)),
    st.tuples(st.just("rows"), st.lists(st.integers(0, 1), min_size=2, max_size=2)),
    st.tuples(st.just("copy"), st.none()),
)


@settings(max_examples=60, derandomize=True)
@given(steps=st.lists(STEPS, max_size=8), frozen=st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_layer_holds_what_a_list_would(steps: list[Any], frozen: list[bool]) -> None:
    """Rows are picked anew (beams), words come one or several at a time, in and out of inference
    mode, and a layer that was copied goes on by itself."""
    generator = torch.Generator().manual_seed(0)

    def new(count: int) -> tuple[Tensor, Tensor]:
        made = [torch.randn(2, 1, count, 3, generator=generator) for _ in range(2)]
        return made[0], made[1]

    layer: Any = GrowingLayer()
    held = new(4)
    layer.update(*held)
    left: list[tuple[Any, tuple[Tensor, Tensor]]] = []

    def append(count: int) -> None:
        nonlocal held
        more = new(count)
        held = (torch.cat([held[0], more[0]], 2), torch.cat([held[1], more[1]], 2))
        got = layer.update(*more)
        assert torch.equal(got[0], held[0]) and torch.equal(got[1], held[1])

    for (kind, what), inference in zip(steps, frozen, strict=False):
        with torch.inference_mode() if inference else torch.no_grad():
            if kind == "words":
                append(what)
            elif kind == "many":
                for _ in range(what):
                    append(1)
            elif kind == "rows":
                layer.reorder_cache(torch.tensor(what))
                held = (held[0][what], held[1][what])
            else:
                left.append((layer, held))
                layer = copy.deepcopy(layer)
            assert torch.equal(layer.keys, held[0]) and torch.equal(layer.values, held[1])
    for old, wanted in left:
        assert torch.equal(old.keys, wanted[0]) and torch.equal(old.values, wanted[1])


def test_words_behind_a_long_prompt_have_a_sixteenth_of_it_for_room() -> None:
    layer: Any = GrowingLayer()
    held = torch.randn(1, 1, 20 * ROOM + 5, 3)
    layer.update(held, held)
    for _ in range(3):
        word = torch.randn(1, 1, 1, 3)
        held = torch.cat([held, word], 2)
        assert all(torch.equal(got, held) for got in layer.update(word, word))


@pytest.mark.parametrize("first", [True, False])
def test_decoding_goes_in_and_out_of_inference_mode(first: bool) -> None:
    made: Any = tiny.model(Route.pal(4, [0, 2]))
    batch = tiny.batch([[37]], text=(3, 2, 8))
    width = batch["input_ids"].shape[1] - 6
    prompt = {
        k: v[:, :width] if k in ("input_ids", "attention_mask") else v for k, v in batch.items()
    }
    with torch.no_grad():
        wanted = made(**batch).logits
    cache: Any = None
    for step, inference in enumerate([first, first, not first, not first, first, not first, first]):
        with torch.inference_mode() if inference else torch.no_grad():
            if cache is None:
                out = made(**prompt, use_cache=True)
            else:
                at = width + step - 1
                out = made(input_ids=batch["input_ids"][:, at : at + 1], past_key_values=cache)
                difference = (out.logits[0, -1] - wanted[0, at]).abs().max()
                assert difference <= 2e-5 * wanted.abs().max()  # as in test_paths
        cache = out.past_key_values

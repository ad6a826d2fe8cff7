"""Watched attention: results stay as they are, and what is shown is what the kernel used."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._models.families import FAMILIES
from palscope._models.recording import LayerAttention
from palscope._routing import Route
from palscope.errors import HookError
from tests import flex, tiny
from tests.routing.strategies import routes

CLIPS = [[37], [52, 30], []]


@lru_cache
def model(family: str = "llama", implementation: str | None = None) -> Any:
    made: Any = tiny.model(Route.pal(4, [0, 2]), family)
    if implementation is not None:
        made.language_model.set_attn_implementation(implementation)
    return made


def run(made: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[LayerAttention]]:
    """Logits, and what each layer's attention was computed from."""
    seen: list[LayerAttention] = []
    with torch.no_grad(), made.recording_attention(seen.append):
        logits = made(**batch).logits
    assert [each.layer for each in seen] == list(range(tiny.LAYERS))
    return logits, seen


def own_patterns(made: Any, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What eager attention of each layer returns beside its output."""
    found: list[torch.Tensor] = []
    layers = made.language_model.model.layers
    with ExitStack() as stack:
        for layer in layers:
            handle = layer.self_attn.register_forward_hook(
                lambda module, args, out: found.append(out[1])
            )
            stack.callback(handle.remove)
        with torch.no_grad():
            made(**batch)
    return found


def agree(seen: list[LayerAttention], patterns: list[torch.Tensor]) -> None:
    for each, pattern in zip(seen, patterns, strict=True):
        for row in range(len(pattern)):
            places = (each.running[row] >= 0).nonzero()[:, 0]
            got = each.weights(row, places)
            torch.testing.assert_close(got, pattern[row][:, places], atol=1e-5, rtol=0)
            assert not got[..., each.columns.keys[row] < 0].any()


# SDPA has no soft cap; Gemma 2 runs eager.
SUPPORTED = [
    (f, kind) for f in FAMILIES for kind in ("eager", "sdpa") if (f, kind) != ("gemma2", "sdpa")
]


@pytest.mark.parametrize(("family", "implementation"), SUPPORTED)
def test_weights_are_the_patterns_and_no_bit_changes(family: str, implementation: str) -> None:
    made = model(family, implementation)
    batch = tiny.batch(CLIPS)
    with torch.no_grad():
        before = made(**batch).logits
    logits, seen = run(made, batch)
    assert torch.equal(logits, before)
    agree(seen, own_patterns(model(family, "eager"), batch))


@settings(max_examples=25, derandomize=True)
@given(route=routes(), family=st.sampled_from(list(FAMILIES)))
def test_on_any_route(route: Route, family: str) -> None:
    batch = tiny.batch(CLIPS)
    fused, eager = model(family), model(family, "eager")
    with fused.routed(route), eager.routed(route):
        agree(run(fused, batch)[1], own_patterns(eager, batch))


def test_one_clip_without_padding_needs_no_mask() -> None:
    made, batch = model(), tiny.batch([[52]])
    with made.routed(Route.plits(4)), model("llama", "eager").routed(Route.plits(4)):
        seen = run(made, batch)[1]
        assert all(each.mask is None for each in seen)
        agree(seen, own_patterns(model("llama", "eager"), batch))
    last = torch.tensor([seen[0].running.shape[1] - 1])
    assert torch.equal(seen[0].weights(0, torch.tensor([-1])), seen[0].weights(0, last))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_flex_attention(family: str) -> None:
    made, batch = model(family, "flex_attention"), tiny.batch(CLIPS)
    with torch.no_grad(), flex.unfused():
        before = made(**batch).logits
        logits, seen = run(made, batch)
    assert torch.equal(logits, before)
    agree(seen, own_patterns(model(family, "eager"), batch))


def test_edges_that_are_cut_have_no_weight() -> None:
    made, batch = model(), tiny.batch(CLIPS)

    def cut(layer: int, queries: Any, keys: Any, visible: Any) -> Any:
        edges = torch.zeros(len(queries), 4, queries.shape[1], keys.shape[1], dtype=torch.bool)
        edges[:, 2, -1, :3] = layer == 2
        return edges

    with made.cutting(cut):
        seen = run(made, batch)[1]
    weights = seen[2].weights(0, torch.tensor([seen[2].running.shape[1] - 1]))
    free = run(made, batch)[1][2].weights(0, torch.tensor([seen[2].running.shape[1] - 1]))
    real = seen[2].columns.keys[0, :3] >= 0
    assert not weights[2, 0, :3].any() and free[2, 0, :3][real].all()
    assert weights[1, 0, :3][real].all()


def test_half_precision() -> None:
    made: Any = tiny.model(Route.pal(4, [0, 2])).to(torch.bfloat16)
    weights = run(made, tiny.batch(CLIPS))[1][0].weights(1, torch.tensor([-1]))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 1))


def test_decoding_steps_are_seen_too() -> None:
    made, batch = model(), tiny.batch([[52]])
    seen: list[LayerAttention] = []
    with torch.no_grad():
        cache = made(**batch, use_cache=True).past_key_values
        with made.recording_attention(seen.append, layers=[3]):
            made(input_ids=torch.tensor([[7]]), past_key_values=cache)
    assert [each.layer for each in seen] == [3]
    assert seen[0].running.tolist() == [[batch["input_ids"].shape[1]]]
    torch.testing.assert_close(seen[0].weights(0, torch.tensor([0])).sum(-1), torch.ones(4, 1))


def unchanged(made: Any) -> bool:
    layers = made.language_model.model.layers
    configs = {id(layer.self_attn.config) for layer in layers}
    return not made.is_watched and configs == {id(made.language_model.config)}


def test_a_listener_that_hears_nothing_is_an_error() -> None:
    made = model()
    with pytest.raises(HookError, match="saw no layer"), made.recording_attention(print):
        pass
    with pytest.raises(HookError, match=r"among \[\]"), made.recording_attention(print, layers=[]):
        made(**tiny.batch(CLIPS))
    assert unchanged(made)


def test_the_model_is_as_before_when_the_listener_fails() -> None:
    made, batch = model(), tiny.batch(CLIPS)

    def fail(attention: LayerAttention) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"), made.recording_attention(fail):
        made(**batch)
    assert unchanged(made)
    assert len(run(made, batch)[1]) == 4


def test_nested_blocks_each_hear_theirs() -> None:
    made, batch = model(), tiny.batch(CLIPS)
    outer: list[int] = []
    inner: list[int] = []
    with torch.no_grad(), made.recording_attention(lambda seen: outer.append(seen.layer)):
        with made.recording_attention(lambda seen: inner.append(seen.layer), layers=[1, 3]):
            made(**batch)
        made(**batch)
    assert outer == [0, 1, 2, 3] * 2 and inner == [1, 3]
    assert unchanged(made)


def test_blocks_may_end_in_any_order() -> None:
    made, batch = model(), tiny.batch(CLIPS)
    heard: list[str] = []
    first, second = ExitStack(), ExitStack()
    first.enter_context(made.recording_attention(lambda seen: heard.append("first"), layers=[0]))
    second.enter_context(made.recording_attention(lambda seen: heard.append("second"), layers=[0]))
    with torch.no_grad():
        made(**batch)
        first.close()
        made(**batch)
    second.close()
    assert heard == ["first", "second", "second"]
    assert unchanged(made)


def test_other_threads_find_the_layer_as_it_is() -> None:
    made, found = model(), list[str]()
    attention = made.language_model.model.layers[0].self_attn

    def look() -> None:
        found.append(attention.config._attn_implementation)

    def listen(attention: LayerAttention) -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        look()

    with torch.no_grad(), made.recording_attention(listen, layers=[0]):
        made(**tiny.batch(CLIPS))
    assert found == ["sdpa", "palscope_redirected"]


def test_threads_do_not_disturb_one_another() -> None:
    made, batch = model(), tiny.batch(CLIPS)
    with torch.no_grad():
        wanted = made(**batch).logits
    found: list[bool] = []

    def work() -> None:
        for _ in range(5):
            heard: list[int] = []
            with (
                torch.no_grad(),
                made.recording_attention(lambda seen, heard=heard: heard.append(seen.layer)),
            ):
                found.append(torch.equal(made(**batch).logits, wanted))
            found.append({*range(4)} <= {*heard})

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20
    assert unchanged(made)

"""Attention from queries and keys against `hook_pattern`, and what it leaves unbuilt."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode

from palscope import measures
from palscope._models.families import FAMILIES
from palscope._routing import Route
from palscope.audio._bundled import bundled_clips
from palscope.errors import HookError, PalscopeError
from palscope.interventions import Address, Knockout, Patch, Sound, Text, Zero, intervene
from palscope.measures import _attention_rows as attention_rows
from palscope.measures._attention_rows import AttentionRows
from tests import demo, tiny
from tests.hooks.conftest import noise
from tests.measures.conftest import PAL, padded_batch
from tests.planted import plant
from tests.routing.strategies import routes

# pandas is typed in part only; what tests do with tables is checked by running them.
attention_mass: Any = measures.attention_mass
pathway_mass: Any = measures.pathway_mass


def by_patterns(model: Any, measure: Any, *args: Any, **kwargs: Any) -> Any:
    """The measure when a hook that changes nothing has every layer compute its pattern."""
    ran: set[int] = set()

    def listen(pattern: Any, hook: Any) -> None:
        ran.add(hook.layer())

    layers = range(model.current_route.n_layers)
    with model.hooks(fwd_hooks=[(f"blocks.{i}.attn.hook_pattern", listen) for i in layers]):
        table = measure(model, *args, **kwargs)
    assert ran == set(layers)
    return table


def agree(model: Any, inputs: Any, **kwargs: Any) -> None:
    for measure in (attention_mass, pathway_mass):
        fused, slow = (
            measure(model, inputs, **kwargs),
            by_patterns(model, measure, inputs, **kwargs),
        )
        assert fused["mass"].dtype == "float32"
        pd.testing.assert_frame_equal(fused, slow, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_equals_its_patterns(make: Any, family: str) -> None:
    model = make(PAL, family)
    agree(model, padded_batch(model), queries="text")


@pytest.mark.parametrize("route", [Route.plits(4), Route.lal(4), Route.lal(4, layers=[1, 2])])
def test_every_integration_equals_its_patterns(make: Any, route: Route) -> None:
    model = make(route)
    agree(model, padded_batch(model), queries="text")


@settings(max_examples=10, derandomize=True, deadline=None)
@given(route=routes())
def test_any_route_equals_its_patterns(pal: Any, route: Route) -> None:
    with pal.route(route):
        agree(pal, padded_batch(pal), queries=(-1, -3))


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits", "relay", "decoy"])
def test_planted_circuits_equal_their_patterns(pathway: Any) -> None:
    planted = plant(pathway)
    agree(planted.model, planted.inputs("A", 5), queries="text")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_knockouts_are_seen_in_the_fused_path(make: Any, implementation: str) -> None:
    model = make()
    model.model.language_model.set_attn_implementation(implementation)
    inputs = padded_batch(model)
    free = pathway_mass(model, inputs)
    address = Address("pattern", Sound(0.1, 0.3), layers=(0, 2), queries=Text(-1), heads=(1,))
    with intervene(model, inputs, [Knockout(address)]):
        agree(model, inputs, queries=(-1, -2))
        cut = pathway_mass(model, inputs)
    lower = cut["mass"] < free["mass"] - 1e-4
    assert set(cut[lower & (cut["pathway"] == "frames")]["head"]) >= {1}


def test_patterns_that_someone_edits_are_read_as_edited(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    free = attention_mass(pal, inputs)
    cut = Patch(Address("pattern", Sound(0.1, 0.3, "frames"), layers=(2,), heads=(1,)), Zero())

    def give_to_the_first_key(pattern: Any, hook: Any) -> Any:
        changed = torch.zeros_like(pattern)
        changed[..., 0] = 1
        return changed

    with pal.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", give_to_the_first_key)]):
        edited = attention_mass(pal, inputs)
    assert (
        edited[(edited["layer"] == 1) & (edited["key"] == edited["key"].min())]["mass"] == 1
    ).all()
    below = edited["layer"] == 0
    pd.testing.assert_frame_equal(edited[below], free[below])
    for measure in (attention_mass, pathway_mass):
        with (
            intervene(pal, inputs, [cut]),
            pytest.raises(PalscopeError, match=r"layer 2.*attention sums to 0"),
        ):
            measure(pal, inputs)


def test_edits_outside_of_attention_are_seen_in_the_fused_path(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    free = pathway_mass(pal, inputs)

    def louder(keys: Any, hook: Any) -> Any:
        return 3 * keys

    names = ("attn.hook_audio_k", "attn.hook_k", "attn.hook_q", "hook_resid_pre")
    for name in names:
        with pal.hooks(fwd_hooks=[(f"blocks.2.{name}", louder)]):
            agree(pal, inputs)
            assert not pathway_mass(pal, inputs).equals(free), name


@pytest.mark.parametrize("flag", ["use_attn_result", "use_split_qkv_input"])
def test_flags_that_need_the_slow_path_are_met(make: Any, flag: str) -> None:
    model = make()
    inputs = padded_batch(model)
    free = pathway_mass(model, inputs)
    getattr(model, f"set_{flag}")(True)
    try:
        assert all(block.attn.is_hooked_inside() for block in model.blocks)
        pd.testing.assert_frame_equal(pathway_mass(model, inputs), free, atol=1e-5, rtol=0)
    finally:
        getattr(model, f"set_{flag}")(False)


def test_a_hook_that_comes_while_the_model_runs_is_no_silent_gap(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))

    def listen_above(state: Any, hook: Any) -> None:
        pal.hook_point("blocks.2.attn.hook_pattern").add_hook(lambda pattern, hook: None)

    try:
        with (
            pal.hooks(fwd_hooks=[("blocks.0.hook_resid_post", listen_above)]),
            pytest.raises(HookError, match="layer 2 is recorded, but"),
        ):
            pathway_mass(pal, inputs)
    finally:
        pal.reset_hooks()
    assert len(pathway_mass(pal, inputs)) == tiny.LAYERS * 4 * 3


def test_no_layer_computes_its_pattern_and_no_bit_of_the_logits_changes(pal: Any) -> None:
    ran: list[int] = []
    inputs = padded_batch(pal)
    with torch.no_grad():
        before = pal(dict(inputs), logits_to_keep=1)
    logits: list[Any] = []
    blocks = list(enumerate(pal.blocks))
    for index, block in blocks:
        own = block.attn._apply_reconstruct_attention_mask
        block.attn._apply_reconstruct_attention_mask = (
            lambda *args, own=own, index=index, **kwargs: ran.append(index) or own(*args, **kwargs)
        )
    try:
        with pal.hooks(fwd_hooks=[("unembed.hook_out", lambda out, hook: logits.append(out))]):
            pathway_mass(pal, inputs, queries="text")
            assert ran == []
            by_patterns(pal, pathway_mass, inputs)
            assert ran == list(range(tiny.LAYERS))
    finally:
        for _, block in blocks:
            del block.attn._apply_reconstruct_attention_mask
    assert torch.equal(logits[0], before)


def test_blocks_of_queries_make_the_same_table(pal: Any, monkeypatch: Any) -> None:
    inputs = padded_batch(pal)
    whole = [measure(pal, inputs, queries="text") for measure in (attention_mass, pathway_mass)]
    sizes: list[int] = []
    monkeypatch.setattr(attention_rows, "_BLOCK", 1000)

    def take(rows: AttentionRows) -> None:
        sizes.append(rows.weights.numel())

    asked = attention_rows.asked_columns(pal, pal.layout(inputs), "text")
    attention_rows.read_attention_rows(pal, inputs, asked, take)
    assert max(sizes) <= 1000 and len(sizes) > 2 * 2 * tiny.LAYERS
    for table, measure in zip(whole, (attention_mass, pathway_mass), strict=True):
        again = measure(pal, inputs, queries="text")
        pd.testing.assert_frame_equal(again, table, atol=1e-6, rtol=0)


class Largest(TorchDispatchMode):
    """Notes the most numbers in any floating tensor that is made; weights are no such tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.numbers = 0
        self._weights = {w.untyped_storage().data_ptr() for w in model.model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else [out]:
            if (
                isinstance(each, torch.Tensor)
                and each.is_floating_point()
                and each.untyped_storage().data_ptr() not in self._weights
            ):
                self.numbers = max(self.numbers, each.numel())
        return out


@pytest.mark.parametrize("route", [Route.plits(4), Route.lal(4)])
def test_nothing_of_queries_by_keys_is_made(make: Any, route: Route) -> None:
    """Of all text over twice the sound: the largest tensor is twice as large, and no pattern."""
    model = make(route, max_position_embeddings=8192)
    largest: dict[float, int] = {}
    for seconds in (60.0, 120.0):
        inputs = model.inputs("what?", noise(seconds))
        encoded = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        encoded["audio"] = model.encode_audio(inputs)
        with Largest(model) as seen:
            pathway_mass(model, encoded, queries="text")
        largest[seconds] = seen.numbers
    assert largest[120.0] < 2.2 * largest[60.0]
    text, width = int((model.layout(inputs).stream == -1).sum()), inputs["input_ids"].shape[1]
    assert largest[120.0] <= 4 * text * width
    with Largest(model) as seen:
        by_patterns(model, pathway_mass, encoded)
    queries = width if route == Route.plits(4) else text
    assert seen.numbers >= 4 * queries * width


def test_half_precision_stays_near_its_patterns(make: Any) -> None:
    model = make()
    model.model.to(torch.bfloat16)
    inputs = padded_batch(model)
    fused, slow = pathway_mass(model, inputs), by_patterns(model, pathway_mass, inputs)
    pd.testing.assert_frame_equal(fused, slow, atol=2e-2, rtol=0)


@pytest.mark.slow
def test_a_trained_model_equals_its_patterns() -> None:
    """One that has both kinds of layers: the kinds alone are held above, of tiny models."""
    model = demo.opened("demo/pal")
    inputs = model.inputs("What sound is this?", bundled_clips().path[0])
    agree(model, inputs)

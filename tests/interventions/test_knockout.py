"""Attention knockout takes edges away before softmax, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._routing import Route
from palscope.errors import HookError, PalscopeError
from palscope.interventions import Address, Knockout, Sound, Text, intervene
from palscope.measures import attention_mass
from palscope.measures._seconds import by_seconds
from tests import flex, tiny
from tests.hooks.conftest import make_hooked
from tests.interventions.conftest import prompt, two_rows


def by_hand(model: Any, inputs: Any, layer: int, heads: list[int], cut: torch.Tensor) -> Any:
    """Logits with minus infinity written into the scores of `cut` `[queries, keys]`."""

    def close(scores: Any, hook: Any) -> Any:
        scores = scores.clone()
        scores[:, heads] = scores[:, heads].masked_fill(cut, torch.finfo(scores.dtype).min)
        return scores

    with torch.no_grad():
        name = f"blocks.{layer}.attn.hook_attn_scores"
        return model.run_with_hooks(dict(inputs), fwd_hooks=[(name, close)])


@pytest.mark.parametrize("heads", [None, (0, 3)])
def test_it_is_what_minus_infinity_by_hand_does(pal: Any, heads: Any) -> None:
    inputs = prompt(pal)
    layout = pal.layout(inputs)
    columns = layout.layer_columns(pal.current_route, 2)
    frames = layout.stream_index("frames")
    keys = (layout.stream[0][columns.keys[0]] == frames) & (
        torch.isin(layout.token[0][columns.keys[0]], torch.tensor([3, 4, 5]))
    )
    queries = layout.stream[0][columns.running[0]] == -1
    cut = queries[:, None] & keys[None, :]
    assert cut.any()
    wanted = by_hand(pal, inputs, 2, list(heads or range(4)), cut)
    address = Address("pattern", Sound(0.3, 0.6, "frames"), layers=(2,), heads=heads)
    with torch.no_grad(), intervene(pal, inputs, [Knockout(address)]):
        found = pal(dict(inputs))
    assert not torch.allclose(found, pal(dict(inputs)), atol=1e-3)
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_what_is_cut_has_no_mass_and_the_rest_sums_to_one(
    tokenizer: Any, implementation: str
) -> None:
    model = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]))
    model.model.language_model.set_attn_implementation(implementation)
    inputs = two_rows(model)
    address = Address("pattern", Sound(0.1, 0.3), layers=(0, 2), queries=Text(-1))
    plain = by_seconds(attention_mass(model, inputs), 0.1, 0.3)
    with torch.no_grad():
        before = model(dict(inputs))[:, -1]
        with intervene(model, inputs, [Knockout(address)]):
            after = model(dict(inputs))[:, -1]
    assert not torch.allclose(before, after, atol=1e-3)
    with intervene(model, inputs, [Knockout(address)]):
        cut = by_seconds(attention_mass(model, inputs), 0.1, 0.3)
    touched = cut["layer"].isin([0, 2])
    assert float(plain[touched]["mass"].min()) > 0
    assert float(cut[touched]["mass"].max()) == 0
    assert float(cut[~touched]["mass"].max()) > 0


def test_implementations_agree_under_a_knockout(tokenizer: Any) -> None:
    found: list[torch.Tensor] = []
    for implementation in ("eager", "sdpa", "flex_attention"):
        model = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), head_dim=16)
        model.model.language_model.set_attn_implementation(implementation)
        inputs = two_rows(model)
        address = Address("pattern", Sound(0.1, 0.3), heads=(1, 2))
        with flex.unfused(), torch.no_grad(), intervene(model, inputs, [Knockout(address)]):
            found.append(model(dict(inputs))[:, -1])
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert torch.allclose(found[0], found[2], atol=1e-4)


def test_muting_is_cutting_every_edge_to_a_stream_that_is_keys_only(pal: Any) -> None:
    """And so no position moves when sound is masked."""
    inputs = prompt(pal)
    muted = pal.current_route.mute("frames")
    with torch.no_grad():
        with pal.route(muted):
            wanted = pal(dict(inputs))[:, -1]
        everyone = [
            Knockout(Address("pattern", Sound(stream="frames"), queries=queries))
            for queries in (Text(), Sound(stream="summary"))
        ]
        with intervene(pal, inputs, everyone):
            found = pal(dict(inputs))[:, -1]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_edges_between_sounds_can_be_cut(plits: Any) -> None:
    inputs = prompt(plits)
    address = Address("pattern", Sound(0.0, 0.3), queries=Sound(0.5, 1.0), layers=(1,))
    with intervene(plits, inputs, [Knockout(address)]) as (where,):
        _, cache = plits.run_with_cache(dict(inputs))
    (part,) = where.parts
    pattern = cache["blocks.1.attn.hook_pattern"][0]
    assert part.queries is not None
    assert float(pattern[:, part.queries][:, :, part.columns].max()) == 0
    assert float(pattern[:, :, part.columns].max()) > 0


def test_what_makes_no_sense_is_refused(pal: Any) -> None:
    inputs = prompt(pal)
    with pytest.raises(PalscopeError, match="its site is pattern"):
        Knockout(Address("resid_pre"))
    everything = Knockout(Address("pattern", layers=(0,)))
    with pytest.raises(HookError, match="nothing to read"), intervene(pal, inputs, [everything]):
        pal(dict(inputs))
    # Text before the clip sees nothing of it: there is no edge to cut.
    knockout = Knockout(Address("pattern", Sound(), layers=(0,)))
    with pytest.raises(HookError, match="2 rows, but"), intervene(pal, inputs, [knockout]):
        pal(two_rows(pal))
    first = Knockout(Address("pattern", Sound(), queries=Text(0)))
    with pytest.raises(HookError, match="cut no edge"), intervene(pal, inputs, [first]):
        pal(dict(inputs))

"""Hooks that cannot fire, or did not, are errors at every entrance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._routing import Route
from palscope.errors import HookError
from tests import tiny
from tests.hooks.conftest import make_hooked, noise

QUESTION = "What is heard here?"
SILENT = "blocks.1.attn.hook_audio_k"
"""Under LAL in layers 0 and 2."""


@pytest.fixture(scope="module")
def lal(tokenizer: Any) -> Any:
    return make_hooked(tokenizer, Route.lal(tiny.LAYERS, [0, 2]))


@pytest.fixture
def clean(lal: Any) -> Any:
    """The model, on which no hook is left."""
    yield lal
    lal.reset_hooks(including_permanent=True)


@pytest.fixture(scope="module")
def inputs(lal: Any) -> Any:
    return lal.inputs(QUESTION, noise(0.3))


def keep(tensor: Any, hook: Any) -> Any:
    return tensor


Entrance = Callable[[Any, Any, Any], None]


def run_with_hooks(model: Any, inputs: Any, place: Any) -> None:
    model.run_with_hooks(inputs, fwd_hooks=[(place, keep)])


def run_with_gradient_hooks(model: Any, inputs: Any, place: Any) -> None:
    model.run_with_hooks(inputs, bwd_hooks=[(place, lambda gradient, hook: None)])


def hooks(model: Any, inputs: Any, place: Any) -> None:
    with model.hooks(fwd_hooks=[(place, keep)]):
        model(inputs)


def add_hook(model: Any, inputs: Any, place: Any) -> None:
    model.add_hook(place, keep)
    model(inputs)


def add_perma_hook(model: Any, inputs: Any, place: Any) -> None:
    model.add_perma_hook(place, keep)
    model(inputs)


def run_with_cache(model: Any, inputs: Any, place: Any) -> None:
    model.run_with_cache(inputs, names_filter=place)


def add_caching_hooks(model: Any, inputs: Any, place: Any) -> None:
    model.add_caching_hooks(place)
    model(inputs)


def get_caching_hooks(model: Any, inputs: Any, place: Any) -> None:
    model.get_caching_hooks(place)
    model.run_with_hooks(inputs, fwd_hooks=model.get_caching_hooks(place)[1])


ENTRANCES: list[Entrance] = [
    run_with_hooks,
    run_with_gradient_hooks,
    hooks,
    add_hook,
    add_perma_hook,
    run_with_cache,
    add_caching_hooks,
    get_caching_hooks,
]


@torch.no_grad()
@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.__name__)
def test_a_place_that_cannot_fire_is_refused_at_every_entrance(
    clean: Any, inputs: Any, entrance: Entrance
) -> None:
    for place, says in (
        (SILENT, r"layers that do: \[0, 2\]"),
        ("blocks.0.hook_nothing", "no hook point"),
        ("rotary_emb.hook_out", "never passes"),
        ("blocks.0.attn.hook_result", "set_use_attn_result"),
        (lambda name: name == SILENT, r"none of the 1 hook points .* layers that do: \[0, 2\]"),
        (lambda name: "nothing" in name, "matches no hook point"),
    ):
        with pytest.raises(HookError, match=says):
            entrance(clean, inputs, place)
        assert not any(point.has_hooks() for point in clean.hook_points())


@torch.no_grad()
@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.__name__)
def test_a_hook_that_did_not_fire_is_an_error_at_every_entrance(
    clean: Any, inputs: Any, entrance: Entrance
) -> None:
    text = dict(clean.processor("no sound at all"))
    place = "blocks.0.attn.hook_audio_k"
    gradient = entrance is run_with_gradient_hooks  # fires in the backward pass, if there is one
    for asked in (place, lambda name: name == place):
        entrance(clean, inputs, asked)
        clean.reset_hooks(including_permanent=True)
        if not gradient:
            with pytest.raises(HookError, match="did not fire"):
                entrance(clean, text, asked)
        clean.reset_hooks(including_permanent=True)


@torch.no_grad()
def test_a_hook_above_the_layer_at_which_a_call_stops_is_refused(clean: Any, inputs: Any) -> None:
    for place in ("blocks.2.hook_resid_pre", "ln_final.hook_normalized", lambda n: "s.3.ln1" in n):
        for stop in (2, -2):
            with pytest.raises(HookError, match="stops before layer 2"):
                clean.run_with_hooks(inputs, fwd_hooks=[(place, keep)], stop_at_layer=stop)
            with pytest.raises(HookError, match="stops before layer 2"):
                clean.run_with_cache(inputs, names_filter=place, stop_at_layer=stop)
            clean.add_hook(place, keep)
            with pytest.raises(HookError, match="stops before layer 2"):
                clean(inputs, stop_at_layer=stop)
            clean.reset_hooks()
    fired: list[str] = []
    below = clean.run_with_hooks(
        inputs,
        fwd_hooks=[(lambda n: "mlp.hook_out" in n, lambda t, hook: fired.append(hook.name))],
        stop_at_layer=2,
    )
    assert fired == ["blocks.0.mlp.hook_out", "blocks.1.mlp.hook_out"]
    _, cache = clean.run_with_cache(inputs, names_filter=["blocks.2.hook_resid_pre"])
    assert torch.equal(below, cache["blocks.2.hook_resid_pre"])


@torch.no_grad()
def test_hooks_that_stay_are_held_to_every_call(clean: Any, inputs: Any) -> None:
    fired: list[str] = []
    clean.add_hook("blocks.2.attn.hook_audio_k", lambda tensor, hook: fired.append(hook.name))
    clean(inputs)
    clean.ask(QUESTION, noise(0.3), max_new_tokens=2)
    clean.generate(inputs, max_new_tokens=3, verbose=False)
    assert len(fired) == 3
    with (
        clean.route(Route.lal(tiny.LAYERS, [1])),
        pytest.raises(HookError, match=r"blocks.2.attn.hook_audio_k.*layers that do: \[1\]"),
    ):
        clean(inputs)
    for call in (clean, clean.run_with_cache, clean.generate):
        with pytest.raises(HookError, match=r"did not fire: blocks\.2\.attn\.hook_audio_k"):
            call(dict(clean.processor("no sound at all")))
    clean.reset_hooks()
    clean(dict(clean.processor("no sound at all")))


@torch.no_grad()
def test_of_places_that_a_function_matches_those_that_can_fire_are_meant(
    clean: Any, inputs: Any
) -> None:
    audio = lambda name: name.endswith("hook_audio_v")  # noqa: E731
    having = {"blocks.0.attn.hook_audio_v", "blocks.2.attn.hook_audio_v"}
    fired: set[str] = set()
    note = lambda tensor, hook: fired.add(hook.name)  # noqa: E731
    assert set(clean.run_with_cache(inputs, names_filter=audio)[1]) == having
    assert set(clean.run_with_cache(inputs, names_filter=having)[1]) == having
    clean.run_with_hooks(inputs, fwd_hooks=[(audio, note)])
    assert fired == having
    fired.clear()
    clean.add_hook(audio, note)
    clean(inputs)
    assert fired == having
    clean.reset_hooks()
    everything = clean.run_with_cache(dict(clean.processor("no sound")))[1]
    assert len(everything) > 100 and not having & set(everything)


@torch.no_grad()
def test_positions_are_sliced_of_the_decoders_places_alone(clean: Any, inputs: Any) -> None:
    whole, last = (clean.run_with_cache(inputs, **k)[1] for k in ({}, {"pos_slice": -1}))
    assert not any(name.startswith("audio_") or "hook_audio" in name for name in last)
    assert {"hook_embed", "blocks.3.hook_resid_post", "blocks.1.attn.hook_pattern"} <= set(last)
    resid = "blocks.3.hook_resid_post"
    torch.testing.assert_close(last[resid], whole[resid][:, -1:])
    with pytest.raises(HookError, match="pos_slice"):
        clean.run_with_cache(inputs, pos_slice=-1, names_filter="audio_pool.hook_out")


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_what_can_fire_fires_and_what_cannot_is_refused(data: Any, lal: Any, inputs: Any) -> None:
    """Of any name, under any route of LAL, stopping anywhere."""
    layers = data.draw(st.sets(st.integers(0, tiny.LAYERS - 1), min_size=1))
    name = data.draw(st.sampled_from(sorted(lal.hook_dict)))
    stop = data.draw(st.none() | st.integers(0, tiny.LAYERS))
    passed: list[str] = []
    point = lal.hook_dict[name]
    handle = point.register_forward_hook(lambda *_: passed.append(name))
    with torch.no_grad(), lal.route(Route.lal(tiny.LAYERS, layers)):
        try:
            lal(inputs, stop_at_layer=stop)
        finally:
            handle.remove()
        try:
            lal.run_with_hooks(inputs, fwd_hooks=[(name, keep)], stop_at_layer=stop)
            ran = True
        except HookError:
            ran = False
    # TransformerLens's attention computes its inside only where someone listens.
    inside = ".attn." in name and not name.endswith(("audio_state", "audio_k", "audio_v"))
    assert ran == bool(passed) or (inside and not passed)

"""The hooked model against the plain one: same logits, hooks that fire, routes that return."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._models.families import FAMILIES
from palscope._routing import ABSENT, ATTEND, FULL, KEYS, PROJECTED, Route
from palscope._verify.tolerance import PER_LAYER, rounding
from palscope.errors import HookError, PalscopeError, RouteError
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise

QUESTION = "What is heard here?"


def batch(hooked: Any) -> dict[str, torch.Tensor]:
    """Two rows of different length, the shorter one padded; one clip and two."""
    processor = hooked.processor
    texts = [processor.chat("what?"), processor.chat("which of the two came first?", clips=2)]
    clips = [noise(0.5), noise(0.8, 1), noise(0.3, 2)]
    return dict(processor(texts, clips, sampling_rate=16_000))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_hooked_logits_equal_plain_logits_on_fused_and_slow_path(
    tokenizer: Any, family: str
) -> None:
    hooked = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), family)
    plain = make_hooked(tokenizer, Route.pal(tiny.LAYERS, [0, 2]), family).model
    # The twin's modules are replaced by its own bridge; its forward before that is the oracle.
    untouched = tiny.model(Route.pal(tiny.LAYERS, [0, 2]), family, vocab_size=vocabulary.COUNT)
    untouched.config.audio_token_id = plain.config.audio_token_id
    inputs = batch(hooked)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = untouched(**inputs).logits[real]
        fused = hooked(inputs)[real]
        slow, cache = hooked.run_with_cache(inputs)
    torch.testing.assert_close(fused, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(slow[real], expected, atol=5e-5, rtol=0)
    pattern = cache["blocks.0.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))


def test_patterns_are_computed_only_in_layers_that_someone_listens_to(hooked: Any) -> None:
    ran: list[int] = []
    for index, block in enumerate(hooked.blocks):
        block.attn._apply_reconstruct_attention_mask = _noting(
            block.attn._apply_reconstruct_attention_mask, ran, index
        )
    inputs = hooked.inputs(QUESTION, noise(0.5))
    with torch.no_grad():
        hooked(inputs)
        assert ran == []
        hooked.run_with_cache(inputs, names_filter="blocks.2.attn.hook_pattern")
    assert ran == [2]


def _noting(function: Any, ran: list[int], index: int) -> Any:
    def noting(*args: Any, **kwargs: Any) -> Any:
        ran.append(index)
        return function(*args, **kwargs)

    return noting


def test_audio_hooks_show_what_the_layout_says(hooked: Any) -> None:
    inputs = batch(hooked)
    layout = hooked.layout(inputs)
    with torch.no_grad():
        _, cache = hooked.run_with_cache(inputs)
    for layer in range(tiny.LAYERS):
        columns = layout.layer_columns(hooked.current_route, layer)
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        assert pattern.shape[2:] == (columns.running.shape[1], columns.keys.shape[1])
        assert cache[f"blocks.{layer}.hook_resid_pre"].shape[1] == columns.running.shape[1]
        name = f"blocks.{layer}.attn.hook_audio_k"
        assert (name in cache) == (layer in (0, 2))
        if name in cache:
            assert cache[name].shape == (2, columns.memory.shape[1], 2, 8)
            # Keys of padding places get no attention from any token.
            padding = (columns.memory < 0)[:, None, None, :]
            real = (columns.running >= 0)[:, None, :, None]
            memory = pattern[..., : columns.memory.shape[1]]
            assert padding.any()
            assert memory.masked_select(padding & real).abs().max() == 0


def test_hooks_that_return_their_input_change_no_bit(hooked: Any) -> None:
    inputs = batch(hooked)
    names = [
        "blocks.0.attn.hook_audio_state",
        "blocks.0.attn.hook_audio_k",
        "blocks.2.attn.hook_audio_v",
        "audio_pool.hook_out",
        "audio_blocks.1.hook_out",
        "blocks.1.hook_resid_post",
    ]
    with torch.no_grad():
        fused = hooked(inputs)
        heard, same, copied = (
            hooked.run_with_hooks(inputs, fwd_hooks=[(name, give) for name in names])
            for give in (
                lambda tensor, hook: None,
                lambda tensor, hook: tensor,
                lambda tensor, hook: tensor.clone(),
            )
        )
    assert torch.equal(heard, same)
    # Layers that are listened to take other kernels, and a copy may lie otherwise in memory: some
    # processors' products then add up in another order.
    near = rounding(PER_LAYER * tiny.LAYERS, float(fused.abs().max()))
    for got in (heard, copied):
        torch.testing.assert_close(got, fused, **near)


@pytest.mark.parametrize("name", ["hook_audio_state", "hook_audio_k", "hook_audio_v"])
def test_editing_audio_changes_the_text_after_it_and_nothing_before(hooked: Any, name: str) -> None:
    inputs = hooked.inputs(QUESTION, noise(0.5))
    layout = hooked.layout(inputs)
    last_audio = int((layout.stream[0] >= 0).nonzero().max())
    first_audio = int((layout.stream[0] >= 0).nonzero().min())
    with torch.no_grad():
        before = hooked(inputs)[0]
        after = hooked.run_with_hooks(
            inputs, fwd_hooks=[(f"blocks.2.attn.{name}", lambda tensor, hook: -3 * tensor)]
        )[0]
        again = hooked(inputs)[0]
    assert torch.equal(before[:first_audio], after[:first_audio])
    changed = (before - after)[last_audio + 1 :].abs().amax(-1)
    # RMSNorm hides the size of a state, not its sign.
    assert (changed > 1e-3).all()
    assert torch.equal(before, again)


def test_every_hook_name_offered_fires(hooked: Any) -> None:
    inputs = hooked.inputs(QUESTION, noise(0.5))
    offered = [
        name
        for name in hooked.hook_dict
        if hooked.can_fire(name) and hooked._gated_hook_reason(hooked.hook_dict[name].name) is None
    ]
    assert len(offered) > 200
    fired: set[str] = set()
    with (
        torch.no_grad(),
        hooked.hooks(
            fwd_hooks=[(lambda name: name in offered, lambda tensor, hook: fired.add(hook.name))]
        ),
    ):
        hooked(inputs)
    canonical = {hooked.hook_dict[name].name for name in offered}
    assert canonical <= fired
    assert fired <= canonical


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("blocks.1.attn.hook_audio_k", r"layers that do: \[0, 2\]"),
        ("blocks.0.attn.hook_audoi_k", "nearest: blocks.0.attn.hook_audio_k"),
        ("blocks.9.hook_resid_pre", "no hook point"),
        ("rotary_emb.hook_out", "cannot fire"),
    ],
)
def test_names_that_cannot_fire_are_refused(hooked: Any, name: str, says: str) -> None:
    inputs = hooked.inputs(QUESTION, noise(0.3))
    with pytest.raises(HookError, match=says):
        hooked.run_with_cache(inputs, names_filter=[name])
    with pytest.raises(HookError, match=says):
        hooked.run_with_hooks(inputs, fwd_hooks=[(name, lambda tensor, hook: tensor)])
    with (
        pytest.raises(HookError, match=says),
        hooked.hooks(fwd_hooks=[(name, lambda tensor, hook: tensor)]),
    ):
        pass


def test_a_hook_that_stays_silent_is_an_error(hooked: Any) -> None:
    encoded = hooked.encode_audio(inputs := hooked.inputs(QUESTION, noise(0.3)))
    given = {k: v for k, v in inputs.items() if not k.startswith(("input_f", "feature"))}
    given["audio"] = encoded
    with torch.no_grad():
        torch.testing.assert_close(hooked(given), hooked(inputs))
        with pytest.raises(HookError, match="given encoded"):
            hooked.run_with_cache(given, names_filter="audio_pool.hook_out")
        text = dict(hooked.processor([hooked.processor.chat("hello", clips=0)]))
        with pytest.raises(HookError, match="did not fire"):
            hooked.run_with_cache(text, names_filter="blocks.0.attn.hook_audio_k")


def test_a_route_is_left_as_it_was_found(hooked: Any) -> None:
    original = hooked.current_route
    inputs = hooked.inputs(QUESTION, noise(0.5))
    with torch.no_grad():
        before = hooked(inputs)
        with hooked.route(original.mute("frames")) as outer:
            muted = hooked(inputs)
            with hooked.route(Route.lal(4, [1]).with_cell("frames", [3], KEYS)):
                hooked(inputs)
            assert hooked.current_route is outer
            with pytest.raises(ZeroDivisionError), hooked.route(original.mute("summary")):
                1 / 0  # noqa: B018
            assert hooked.current_route is outer
        assert hooked.current_route is original
        assert torch.equal(before, hooked(inputs))
    assert not torch.allclose(before, muted)
    hooked.set_route(outer)
    assert hooked.current_route is outer


def test_a_route_without_weights_is_refused_with_the_layers_that_have_them(
    tokenizer: Any,
) -> None:
    from palscope._connectors import ConnectorConfig

    route = Route.lal(tiny.LAYERS, [1, 3])
    model = tiny.model(
        route, connector=ConnectorConfig.for_route(route), vocab_size=vocabulary.COUNT
    )
    with pytest.raises(RouteError, match=r"no projector for layers \[0\].*\[1, 3\]"):
        model.route = Route.lal(tiny.LAYERS, [0, 1])
    with pytest.raises(RouteError, match="no input projector"):
        model.route = route.with_audio_queries()
    assert model.route == route


@pytest.mark.parametrize(
    "route",
    [
        tiny.both_streams(FULL, ABSENT),
        tiny.both_streams([PROJECTED, ABSENT, ATTEND, KEYS], [FULL, FULL, ABSENT, KEYS]),
        tiny.both_streams(PROJECTED, PROJECTED),
    ],
    ids=["plits", "mixed", "both-as-keys"],
)
def test_the_same_hooks_serve_any_route(tokenizer: Any, route: Route) -> None:
    hooked = make_hooked(tokenizer, tiny.both_streams(FULL, FULL))
    plain = tiny.model(tiny.both_streams(FULL, FULL), vocab_size=vocabulary.COUNT)
    plain.config.audio_token_id = hooked.model.config.audio_token_id
    inputs = batch(hooked)
    with torch.no_grad(), hooked.route(route), plain.routed(route):
        logits, cache = hooked.run_with_cache(inputs)
        expected = plain(**inputs).logits
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[real], expected[real], atol=5e-5, rtol=0)
    assert len([n for n in cache if n.endswith("hook_pattern")]) == tiny.LAYERS


def test_what_would_be_wrong_is_refused(hooked: Any) -> None:
    with pytest.raises(PalscopeError, match="folds"):
        hooked.enable_compatibility_mode()
    with pytest.raises(PalscopeError, match="start_at_layer"):
        hooked(torch.zeros(1, 3, 32), start_at_layer=1)

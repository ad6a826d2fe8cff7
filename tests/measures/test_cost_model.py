"""What a route costs is what PyTorch counts, for every kind of route, forward and backward."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from palscope._models import AudioClips, PalscopeForConditionalGeneration
from palscope._routing import KEYS, Route
from palscope.encoders import EncoderOutput
from palscope.measures import _cost_model as cost_model
from tests import tiny, vocabulary
from tests.connectors import systems

FRAMES, TEXT, BEFORE = 40, 9, 3

ROUTES = {
    "plits": Route.plits(4),
    "lal": Route.lal(4),
    "lal above": Route.lal(4, [2, 3]),
    "pal": Route.pal(4, [0, 2]),
    "queries": Route.lal(4).with_audio_queries(),
    "frozen": Route.plits(4).frozen_from(2),
    "summary read": Route.pal(4, [0, 2]).with_cell("summary", [2, 3], KEYS),
    "muted": Route.pal(4, [0, 2]).mute("summary"),
}


def _fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _fused_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


KERNELS: Any = {  # CPUs' kernels, which PyTorch's counter does not know
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused_backward,
}


def counting() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=KERNELS)


def counted(counter: FlopCounterMode) -> int:
    """All but the table of rotary angles, which the counter takes for a product."""
    by_module = counter.get_flop_counts()
    angles = [sum(v.values()) for name, v in by_module.items() if name.endswith("rotary_emb")]
    return counter.get_total_flops() - sum(angles)


def made(route: Route, family: str = "llama") -> Any:
    """A model with every projector for the route's streams."""
    return tiny.model(route, family)


def prompt(model: Any, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of `rows` prompts with a clip each, and the encoder's states of the clips."""
    layout = cost_model.prompt_layout(model, frames=FRAMES, text=TEXT, before=BEFORE, rows=rows)
    ids = torch.where(layout.stream >= 0, tiny.AUDIO_ID, 5)
    torch.manual_seed(0)
    return ids, torch.randn(rows, FRAMES * 5, model.encoder.width)


def heard(model: Any, states: torch.Tensor) -> AudioClips:
    rows, tokens = states.shape[:2]
    streams = model.connector([EncoderOutput(states, torch.full((rows,), tokens))])
    return AudioClips(streams, (FRAMES,) * rows, (4.0,) * rows, tuple(range(rows)))


def layout_of(model: Any, rows: int = 1) -> Any:
    return cost_model.prompt_layout(model, frames=FRAMES, text=TEXT, before=BEFORE, rows=rows)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", ROUTES)
@torch.no_grad()
def test_prefill_is_what_is_counted(name: str, rows: int) -> None:
    model = made(ROUTES[name])
    ids, states = prompt(model, rows)
    with counting() as counter:
        audio = heard(model, states)
        model(input_ids=ids, audio=audio, use_cache=True, logits_to_keep=1)
    table = cost_model.forward_costs(model, layout_of(model, rows))
    assert table["flops"].sum() == counted(counter)
    with counting() as counter:
        model(input_ids=ids, audio=audio, use_cache=True, logits_to_keep=1)
    again = cost_model.forward_costs(model, layout_of(model, rows), clips_known=True)
    assert again["flops"].sum() == counted(counter)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "phi3", "olmo2", "gemma3_text"])
@torch.no_grad()
def test_other_families_are_counted_alike(family: str) -> None:
    model = made(Route.pal(4, [0, 2]), family)
    ids, states = prompt(model)
    with counting() as counter:
        model(input_ids=ids, audio=heard(model, states), logits_to_keep=1)
    assert cost_model.forward_costs(model, layout_of(model))["flops"].sum() == counted(counter)


@pytest.mark.parametrize("whole", [False, True], ids=["connector", "both"])
@pytest.mark.parametrize("name", ROUTES)
def test_training_is_what_is_counted(name: str, whole: bool) -> None:
    model = made(ROUTES[name]).train()
    model.freeze_bases()
    model.language_model.requires_grad_(whole)
    ids, states = prompt(model)
    labels = torch.full_like(ids, -100)
    labels[:, -4:] = 5
    with counting() as counter:
        model(input_ids=ids, audio=heard(model, states), labels=labels).loss.backward()
    table = cost_model.training_costs(model, layout_of(model), targets=4)
    assert table["flops"].sum() == counted(counter)
    assert set(table["direction"]) == {"forward", "backward"}


@pytest.mark.parametrize("whole", [False, True], ids=["connector", "both"])
@pytest.mark.parametrize("name", ROUTES)
def test_what_training_keeps_is_what_autograd_saves(name: str, whole: bool) -> None:
    """Up to masks of ids, angles and indices, which are small beside states; more in odd routes."""
    model = tiny.model(ROUTES[name], hidden_size=128, head_dim=32, intermediate_size=512).train()
    model.freeze_bases()
    model.language_model.requires_grad_(whole)
    ids, states = prompt(model, 2)
    labels = torch.full_like(ids, -100)
    labels[:, -4:] = 5
    given = {t.untyped_storage().data_ptr() for t in (states, *model.state_dict().values())}
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=ids, audio=heard(model, states), labels=labels).loss
    assert loss.requires_grad
    kept = sum(storage.nbytes() for storage in saved.values())
    counted = cost_model.training_bytes(model, layout_of(model, 2), targets=8)["bytes"].sum()
    assert counted == pytest.approx(kept, rel=0.03 if name in ("plits", "lal", "pal") else 0.1)


def test_a_mask_has_a_number_for_each_row_query_and_key() -> None:
    model = tiny.model(ROUTES["lal"]).train()
    model.freeze_bases()
    layout = layout_of(model, 3)
    columns = layout.layer_columns(model.route, 0)
    (mask,) = (
        row
        for row in cost_model.training_bytes(model, layout, targets=8).to_dict("records")
        if row["part"] == "mask"  # one, which all layers share
    )
    wide, keys = columns.running.shape[1], columns.keys.shape[1]
    assert mask["bytes"] == 3 * wide * keys * 4


@pytest.mark.parametrize("name", ROUTES)
@torch.no_grad()
def test_a_decoding_step_and_its_cache_are_what_is_counted(name: str) -> None:
    model = made(ROUTES[name])
    ids, states = prompt(model, 2)
    layout = layout_of(model, 2)
    first = model(input_ids=ids, audio=heard(model, states), use_cache=True)
    cache = first.past_key_values
    assert cost_model.cache_bytes(model, layout)["bytes"].sum() == cache.nbytes
    for written in range(2):
        with counting() as counter:
            model(input_ids=torch.full((2, 1), 5), past_key_values=cache)
        table = cost_model.decoding_costs(model, layout, written=written)
        assert table["flops"].sum() == counted(counter)


@torch.no_grad()
def test_the_cache_of_the_models_type_is_counted() -> None:
    model = made(Route.pal(4, [0, 2])).bfloat16()
    ids, states = prompt(model)
    cache = model(input_ids=ids, audio=heard(model, states.bfloat16()), use_cache=True)
    table = cost_model.cache_bytes(model, layout_of(model))
    assert table["bytes"].sum() == cache.past_key_values.nbytes
    assert (table.loc[[1, 3], "audio_bytes"] == 0).all() and (table["running_bytes"] > 0).all()


@pytest.mark.parametrize("readers", ["all", "text"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_visible_pairs_are_those_of_the_mask(readers: str, family: str) -> None:
    from dataclasses import replace

    model = made(replace(Route.pal(4, [0, 2]), frame_readers=readers), family)
    layout = layout_of(model, 2)
    table = cost_model.forward_costs(model, layout).query("part == 'attention'")
    window = 7 if family == "mistral" else None
    for layer, flops in zip(table["layer"], table["visible_flops"], strict=True):
        columns = layout.layer_columns(model.route, layer)
        seen = layout.visible(columns.running, columns.keys, window=window, frame_readers=readers)
        assert flops == 4 * 32 * int(seen.sum())
    assert (table["visible_flops"] < table["flops"]).all()


def test_no_weight_is_read() -> None:
    real = made(Route.pal(4, [0, 2]))
    with torch.device("meta"):
        shapes: Any = PalscopeForConditionalGeneration(real.config)
    assert {weight.device.type for weight in shapes.parameters()} == {"meta"}
    for model in (real, shapes):
        model.freeze_bases()
    for count in (
        cost_model.forward_costs,
        cost_model.decoding_costs,
        cost_model.cache_bytes,
        lambda model, layout: cost_model.training_costs(model, layout, targets=2),
        lambda model, layout: cost_model.training_bytes(model, layout, targets=2),
    ):
        pd.testing.assert_frame_equal(count(real, layout_of(real)), count(shapes, layout_of(real)))


def test_a_hooked_model_is_counted_alike(pal: Any) -> None:
    plain = tiny.model(pal.model.route, vocab_size=vocabulary.COUNT)
    for model in (plain, pal.model):
        model.freeze_bases()
    for count in (
        cost_model.forward_costs,
        lambda model, layout: cost_model.training_bytes(model, layout, targets=2),
    ):
        pd.testing.assert_frame_equal(
            count(plain, layout_of(plain)), count(pal.model, layout_of(plain))
        )
    pal.model.requires_grad_(True)


def test_bytes_are_of_weights_inputs_and_outputs() -> None:
    model = made(Route.lal(4))
    table = cost_model.forward_costs(model, layout_of(model)).set_index(["part", "layer"])
    assert table.loc[("queries", 0), "bytes"].item() == 4 * (32 * 32 + TEXT * (32 + 32))
    # Both halves of the feed-forward network, 48 wide.
    fed = 3 * 32 * 48 + TEXT * (32 + 2 * 48 + 48 + 32)
    assert table.loc[("feed-forward", 0), "bytes"].sum() == 4 * fed
    attention = 2 * TEXT * 32 + 2 * (FRAMES + TEXT) * 16
    assert table.loc[("attention", 0), "bytes"].item() == 4 * attention


def test_a_product_takes_the_longer_of_arithmetic_and_moving() -> None:
    table = pd.DataFrame({"visible_flops": [100.0, 10.0], "bytes": [1.0, 40.0]})
    seconds = cost_model.least_seconds(table, flops_per_second=10, bytes_per_second=4)
    assert seconds == 10 + 10


def test_what_cannot_be_counted_is_refused() -> None:
    model = made(Route.lal(4))
    with pytest.raises(ValueError, match="requires_grad"):
        cost_model.training_costs(model, layout_of(model), targets=1)
    model.freeze_bases()
    model.route = Route.lal(4).mute("frames")
    with pytest.raises(ValueError, match="nothing trains the connector"):
        cost_model.training_costs(model, layout_of(model), targets=1)
    with pytest.raises(ValueError, match="3 words, 4 of them before"):
        cost_model.prompt_layout(model, frames=2, text=3, before=4)


RESAMPLED = ["pool of two", "Q-Former", "Q-Former in windows", "Q-Former of two", "LFST"]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("route", systems.ROUTES)
@pytest.mark.parametrize("name", RESAMPLED)
def test_every_resampler_is_counted(name: str, route: str, rows: int) -> None:
    model: Any = systems.made(name, systems.ROUTES[route])[0].train()
    model.freeze_bases()
    seconds = 2.05
    layout = cost_model.prompt_layout(
        model,
        frames=model.frame_grid.tokens(seconds),
        text=TEXT,
        before=BEFORE,
        rows=rows,
        seconds=seconds,
    )
    ids = torch.where(layout.stream >= 0, model.config.audio_token_id, 5)
    outputs = [
        EncoderOutput(torch.randn(rows, count, each.width), torch.full((rows,), count))
        for each in model.encoder.emits
        for count in [each.grid.tokens(seconds)]
    ]

    def audio() -> AudioClips:
        frames = (model.frame_grid.tokens(seconds),) * rows
        return AudioClips(model.connector(outputs), frames, (seconds,) * rows, tuple(range(rows)))

    # PyTorch's counter takes a view of a weight that could be trained for a step of a graph.
    model.connector.requires_grad_(False)
    with torch.no_grad(), counting() as counter:
        model(input_ids=ids, audio=audio(), use_cache=True, logits_to_keep=1)
    table = cost_model.forward_costs(model, layout)
    assert table["flops"].sum() == counted(counter)
    model.connector.requires_grad_(True)
    assert ("resampler" in set(table["part"])) == ("pool" not in name)
    labels = torch.full_like(ids, -100)
    labels[:, -2:] = 5
    with counting() as counter:
        model(input_ids=ids, audio=audio(), labels=labels).loss.backward()
    table = cost_model.training_costs(model, layout, targets=2 * rows)
    assert table["flops"].sum() == counted(counter)


def test_no_weight_of_a_resampler_is_read() -> None:
    for name in ("Q-Former in windows", "LFST"):
        real = systems.made(name, systems.ROUTES["pal"])[0]
        with torch.device("meta"):
            shapes: Any = PalscopeForConditionalGeneration(real.config)
        frames = real.frame_grid.tokens(1.6)
        for model in (real, shapes):
            model.freeze_bases()
        tables = [
            cost_model.training_costs(
                model, cost_model.prompt_layout(model, frames=frames, text=3), targets=1
            )
            for model in (real, shapes)
        ]
        pd.testing.assert_frame_equal(*tables)


def test_frame_tokens_that_do_not_tell_the_seconds_need_them() -> None:
    model = systems.made("Q-Former", systems.ROUTES["lal"])[0]
    with pytest.raises(ValueError, match="give its seconds"):
        cost_model.prompt_layout(model, frames=4, text=3)
    with pytest.raises(ValueError, match="has 4 frame tokens, not 5"):
        cost_model.prompt_layout(model, frames=5, text=3, seconds=1.0)
    layout = cost_model.prompt_layout(model, frames=4, text=3, seconds=1.0)
    model.freeze_bases()
    with pytest.raises(ValueError, match=r"resampler keeps .* is not counted"):
        cost_model.training_bytes(model, layout, targets=1)

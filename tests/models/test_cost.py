"""What `keys` tokens cost, counted by hooks (oracle 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from palscope._models.families import FAMILIES
from palscope._routing import Level, Route
from tests import tiny
from tests.routing.strategies import routes


@contextmanager
def counted(made: Any) -> Generator[Counter[tuple[int, str]], None, None]:
    """Tokens that each layer's query projection and feed-forward network are given."""
    counts: Counter[tuple[int, str]] = Counter()
    handles: list[Any] = []

    def count(layer: int, what: str) -> Any:
        def hook(_module: Any, args: tuple[Tensor, ...]) -> None:
            counts[layer, what] += args[0].shape[:-1].numel()

        return hook

    for index, layer in enumerate(made.language_model.model.layers):
        attention = layer.self_attn
        query = attention.qkv_proj if hasattr(attention, "qkv_proj") else attention.q_proj
        handles.append(query.register_forward_pre_hook(count(index, "queries")))
        handles.append(layer.mlp.down_proj.register_forward_pre_hook(count(index, "fed")))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def expected(made: Any, batch: dict[str, Tensor], route: Route) -> dict[tuple[int, str], int]:
    layout = made.layout(batch["input_ids"], feature_lengths=batch["feature_lengths"])
    kinds = layout.stream[0].tolist()
    counts: dict[tuple[int, str], int] = {}
    for layer in range(route.n_layers):
        queries = fed = kinds.count(-1)
        for stream, cells in route.rows:
            tokens = kinds.count(layout.stream_index(stream.name))
            queries += tokens * cells[layer].level.runs
            fed += tokens * (cells[layer].level is Level.FULL)
        counts[layer, "queries"], counts[layer, "fed"] = queries, fed
    return counts


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_lal_queries_and_feeds_text_alone(family: str) -> None:
    made = tiny.model(Route.lal(4), family)
    batch = tiny.batch([[137]], streams=made.route.streams)
    text = int((batch["input_ids"] != tiny.AUDIO_ID).sum())
    with counted(made) as counts:
        made(**batch)
    assert counts == {(layer, what): text for layer in range(4) for what in ("queries", "fed")}


@settings(max_examples=25, derandomize=True)
@given(route=routes())
@torch.no_grad()
def test_any_route_runs_what_its_table_says(route: Route) -> None:
    made = tiny.model()
    batch = tiny.batch([[43, 12]])
    with made.routed(route), counted(made) as counts:
        made(**batch)
    assert counts == expected(made, batch, route)


@torch.no_grad()
def test_decoding_runs_new_text_alone() -> None:
    made = tiny.model()
    for route in (Route.plits(4), Route.pal(4)):
        with made.routed(route):
            cache = made(**tiny.batch([[43]]), use_cache=True).past_key_values
            with counted(made) as counts:
                made(input_ids=torch.tensor([[5]]), past_key_values=cache)
        assert set(counts.values()) == {1}


@torch.no_grad()
def test_lals_operations_are_those_of_text_and_two_projections() -> None:
    # Eager, for the counter knows no fused kernel of CPUs.
    made = tiny.model(Route.lal(4), attn_implementation="eager")
    batch = tiny.batch([[400]], streams=made.route.streams)
    audio = made.encode_audio(batch.pop("input_features"), batch.pop("feature_lengths"))
    text = batch["input_ids"][batch["input_ids"] != tiny.AUDIO_ID][None]

    def operations(keep: int = 1, **inputs: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            made(**inputs, logits_to_keep=keep)
        return counter.get_total_flops()

    plain = operations(input_ids=text)
    first = operations(**batch, audio=audio)
    again = operations(**batch, audio=audio)
    frames, d, kv = 40, 32, 16
    projector = 2 * frames * (2 * 16 * 16 + 16 * d)  # 2 layers of Whisper side by side, hidden 16
    keys_values = 2 * frames * d * kv * 2
    reading = 2 * 2 * text.shape[1] * frames * d  # scores and mixing
    assert again - plain == 4 * reading
    assert first - again == 4 * (projector + keys_values)
    # Logits of all columns are those of text: no audio place is unembedded.
    unembedding = 2 * d * tiny.VOCABULARY
    assert operations(0, **batch, audio=audio) - again == unembedding * (text.shape[1] - 1)


def test_the_attending_skip_the_feed_forward_network_and_nothing_else() -> None:
    made = tiny.model()
    batch = tiny.batch([[43]])
    route = Route.lal(4).with_audio_queries()
    with torch.no_grad(), made.routed(route), counted(made) as counts:
        out = made(**batch, output_hidden_states=True)
    assert counts == expected(made, batch, route)
    layout = made.layout(batch["input_ids"], feature_lengths=batch["feature_lengths"])
    running = layout.layer_columns(route, 0).running[0]
    frames = layout.stream[0][running] == 0
    moved = (out.hidden_states[1] - out.hidden_states[0])[0][frames].abs().amax(-1)
    assert (moved > 0).all()  # they did attend

"""What keys write sums to what attention adds, and stands where it was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._models.families import FAMILIES, raw
from palscope._routing import KEYS, Route
from palscope.errors import PalscopeError, PromptError
from palscope.measures import attention_mass
from palscope.measures._key_writes import (
    attention_writes,
    offered_logits,
    written_by_pathway,
    written_logits,
)
from palscope.measures._vocabulary import norm_gain
from tests import tiny
from tests.measures.conftest import padded_batch
from tests.planted import plant


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_all_keys_together_write_what_attention_adds(make: Any, family: str) -> None:
    """Every family, with norms behind attention or not; LAL, summary and text; a padded batch."""
    model = make(family=family)
    inputs = padded_batch(model)
    with torch.no_grad():
        _, cache = model.run_with_cache(inputs)
        logits = model(inputs)
    route, layout = model.current_route, model.layout(inputs)
    seen = set()
    for writes in attention_writes(model, inputs):
        running = layout.layer_columns(route, writes.layer).running[writes.row].tolist()
        place = running.index(writes.query)
        added = cache[f"blocks.{writes.layer}.hook_attn_out"][writes.row, place]
        torch.testing.assert_close(writes.written.sum((0, 1)), added, atol=1e-5, rtol=1e-5)
        final = cache["ln_final.hook_in"][writes.row, place]
        normed = raw(model.model.language_model.model.norm).forward(final)
        torch.testing.assert_close(final * writes.scale, normed, atol=1e-5, rtol=1e-5)
        seen.add((writes.row, writes.layer))
    assert seen == {(row, layer) for row in range(2) for layer in range(tiny.LAYERS)}
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("family", ["llama", "granite"])
def test_summed_contributions_are_those_of_the_layers(make: Any, family: str) -> None:
    """In logits: keys of all pathways together give the attention output's direct effect."""
    model = make(family=family)
    inputs = padded_batch(model)
    pathways = ["text", "frames", "summary"]
    table = written_logits(model, inputs, pathways=pathways, answers=[5, 9], top_k=0)
    with torch.no_grad():
        _, cache = model.run_with_cache(inputs)
    head = model.model.language_model.lm_head.weight.detach() / (1.7 if family == "granite" else 1)
    groups: Any = table.groupby(["row", "layer", "id"])
    for (row, layer, entry), group in groups:
        final = cache["ln_final.hook_in"][row, -1]
        gain = norm_gain(raw(model.model.language_model.model.norm), final)
        added = cache[f"blocks.{layer}.hook_attn_out"][row, -1] * gain
        assert group["logit"].sum() == pytest.approx(float(added @ head[entry]), abs=2e-5)
        assert group["key"].is_monotonic_increasing and group["key"].is_unique


def test_text_agrees_with_transformer_lens(make: Any) -> None:
    """Its `stack_head_results` and `logit_attrs`, which know no audio."""
    model = make()
    with torch.no_grad():  # theirs divides by the norm's scale and takes its weight for folded
        raw(model.model.language_model.model.norm).weight.fill_(1)
    inputs = model.inputs("which of these words is it?")
    model.set_use_attn_result(True)
    try:
        with torch.no_grad():
            _, cache = model.run_with_cache(inputs)
    finally:
        model.set_use_attn_result(False)
    heads = cache.stack_head_results(layer=-1, pos_slice=-1)
    theirs = cache.logit_attrs(heads, tokens=5, pos_slice=-1, has_batch_dim=True)
    mine = torch.stack([w.written.sum(1) for w in attention_writes(model, inputs)]).flatten(0, 1)
    torch.testing.assert_close(mine, heads[:, 0], atol=1e-5, rtol=1e-4)
    scale = next(iter(attention_writes(model, inputs))).scale
    direct = (mine * scale) @ model.model.language_model.lm_head.weight[5].detach()
    torch.testing.assert_close(direct, theirs[:, 0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits"])
def test_the_planted_token_writes_the_answer_and_nothing_else_does(pathway: Any) -> None:
    planted = plant(pathway)
    table = written_logits(planted.model, planted.inputs("A", 5), answers=["A", "B"], top_k=0)
    wrote = table[table["logit"].abs() > 1e-6]
    assert set(wrote["key"]) == {planted.event_column(5)} and set(wrote["layer"]) == {planted.layer}
    assert wrote.set_index("entry")["logit"]["A"] == pytest.approx(7.54, abs=0.01)
    assert wrote.set_index("entry")["rank"].to_dict() == {"A": 0, "B": 10}


def test_a_decoy_offers_nothing_and_its_neighbour_what_it_would_write_alone() -> None:
    planted = plant("decoy")
    inputs = planted.inputs("A", 5)
    offered = offered_logits(planted.model, inputs, answers=["A", "B"], top_k=0)
    loud = offered[offered["logit"].abs() > 1e-6]
    assert set(zip(loud["layer"], loud["head"], strict=True)) == {(planted.layer, planted.head)}
    assert set(loud["key"]) == {planted.event_column(5)}
    written = written_logits(planted.model, inputs, answers=["A", "B"], top_k=0)
    ratio = written["logit"].abs().max() / loud["logit"].abs().max()
    mass = attention_mass(planted.model, inputs)
    mine = (mass["layer"] == planted.layer) & (mass["head"] == planted.head)
    event = mass[mine & (mass["key"] == planted.event_column(5))]["mass"].item()
    assert ratio == pytest.approx(event, rel=1e-4) and 0.5 < ratio < 0.6


def test_a_relays_sound_reaches_the_last_token_through_its_word_only() -> None:
    planted = plant("relay")
    assert planted.other is not None
    inputs = planted.inputs("A", 5)
    at_last: Any = written_logits(planted.model, inputs, answers=["A", "B"], top_k=0)
    assert (at_last["logit"].abs() < 1e-6).all()
    text = written_logits(planted.model, inputs, pathways=["text"], answers=["A", "B"], top_k=0)
    wrote = text[text["logit"].abs() > 1e-6]
    assert set(wrote["key"]) == {planted.relay_column()} and set(wrote["token"]) == {"sound"}
    assert set(wrote["layer"]) == {planted.other[0]}
    column = planted.relay_column()
    (told,) = [
        writes
        for writes in attention_writes(planted.model, inputs, query=column)
        if writes.layer == planted.layer
    ]
    size = told.written.norm(dim=-1)
    assert (size > 1e-6).nonzero().tolist() == [
        [planted.head, told.keys.index(planted.event_column(5))]
    ]


def test_carried_keys_write_too(make: Any) -> None:
    """PLITS frozen from layer 2: its tokens run below and are keys above."""
    model = make(Route.plits(tiny.LAYERS))
    inputs = model.inputs("what?", np.full(8000, 0.1, np.float32))
    with model.route(Route.plits(tiny.LAYERS).with_cell("frames", range(2, tiny.LAYERS), KEYS)):
        table: Any = written_logits(model, inputs, top_k=1)
        assert set(table["layer"]) == set(range(tiny.LAYERS))
        assert table.groupby("layer")["key"].nunique().eq(5).all()
        frame = int(table["key"].iloc[0])
        with pytest.raises(PromptError, match="does not run in the last layer"):
            written_logits(model, inputs, query=frame)


def test_what_cannot_be_listed_is_said(pal: Any) -> None:
    inputs = padded_batch(pal)
    with pytest.raises(PalscopeError, match="no pathway frame; there are: text, frames, summary"):
        written_logits(pal, inputs, pathways=["frame"])
    with pytest.raises(PalscopeError, match="nothing to list"):
        offered_logits(pal, inputs, top_k=0)
    text = pal.inputs("which words?")
    with pytest.raises(PalscopeError, match="nothing is written"):
        written_logits(pal, text)


def test_a_pathway_writes_what_its_keys_write(pal: Any) -> None:
    inputs = padded_batch(pal)
    pathways = ["text", "frames", "summary"]
    keys: Any = written_logits(pal, inputs, pathways=pathways, answers=[5, 9], top_k=0)
    whole: Any = written_by_pathway(pal, inputs, pathways=pathways, answers=[5, 9], top_k=0)
    name = ["row", "query", "layer", "pathway", "id"]
    sums = keys.groupby(name, observed=True)["logit"].sum()
    mine = whole.set_index(name)["logit"].reindex(sums.index)
    assert len(whole) == len(sums) == 2 * 2 * (2 * 3 + 2 * 2)  # frames in two layers of four
    np.testing.assert_allclose(mine, sums, atol=1e-5)

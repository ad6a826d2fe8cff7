"""The lens gives the model's own logits at the top, TransformerLens's below, the planted place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope._models.families import FAMILIES
from palscope._routing import ATTEND, FULL, KEYS, PROJECTED, Route
from palscope.errors import PalscopeError, PromptError
from palscope.measures._key_writes import written_by_pathway
from palscope.measures._logit_lens import (
    answer_lead,
    by_depth,
    logit_lens,
    readable_from,
    written_lead,
)
from palscope.measures._vocabulary import deciding_entries, spellings
from tests import tiny, vocabulary
from tests.measures.conftest import padded_batch
from tests.planted import LAYERS, WORDS, plant


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_after_the_last_layer_the_lens_gives_the_models_logits(make: Any, family: str) -> None:
    """Every family: their final norms differ, and Gemma 2 has a soft cap."""
    model = make(family=family)
    inputs = padded_batch(model)
    asked = [7, 400, vocabulary.COUNT - 1]
    table = logit_lens(model, inputs, answers=asked, top_k=3)
    with torch.no_grad():
        logits = model(inputs).float()
    last = table[(table["layer"] == tiny.LAYERS - 1) & (table["site"] == "resid_post")]
    own = logits[last["row"].tolist(), last["column"].tolist()]
    at = torch.tensor(last["id"].tolist())[:, None]
    value = own.gather(1, at)
    np.testing.assert_allclose(last["logit"], value[:, 0], atol=2e-5)
    np.testing.assert_allclose(last["logprob"], own.log_softmax(-1).gather(1, at)[:, 0], atol=5e-5)
    ranks = (own > value + 2e-5).sum(1).numpy()
    assert (last["rank"] >= ranks).all() and (last["rank"] - ranks <= 5).all()
    # Text and the summary run, frames and padding do not; each token has all that was asked for.
    layout = model.layout(inputs)
    runs = (layout.stream == -1) | (layout.stream == layout.stream_index("summary"))
    listed = last.groupby(["row", "column"])["id"].agg(set)
    assert set(listed.index) == {(int(r), int(c)) for r, c in runs.nonzero()}
    assert all(set(asked) <= ids for ids in listed)
    assert (last.groupby(["row", "column"])["rank"].min() == 0).all()


def test_text_agrees_with_transformer_lens(make: Any) -> None:
    model = make()
    inputs = model.inputs("which of these words is it?")
    with torch.no_grad():
        _, cache = model.run_with_cache(inputs)
    stack, names = cache.accumulated_resid(apply_ln=True, return_labels=True)
    logits = (stack[:, 0] @ model.W_U).detach()
    table = logit_lens(model, inputs, answers=[5], top_k=1)
    assert names == [*(f"{layer}_pre" for layer in range(tiny.LAYERS)), "final_post"]
    for number in range(tiny.LAYERS + 1):
        site = "resid_post" if number else "resid_pre"
        mine = table[(table["layer"] == max(0, number - 1)) & (table["site"] == site)]
        own = mine[mine["id"] == 5].sort_values("column")
        np.testing.assert_allclose(own["logit"], logits[number, :, 5], atol=1e-4)
        best = mine[mine["rank"] == 0].sort_values("column")
        assert best["id"].tolist() == logits[number].argmax(-1).tolist()


def test_the_planted_layer_makes_the_answer_readable_at_the_last_token_alone() -> None:
    circuits: Any = (("lal", 1), ("summary", 1), ("plits", 1), ("relay", 3))
    for pathway, first in circuits:
        planted = plant(pathway)
        a, b = planted.answers
        inputs = planted.inputs("B", 5)
        table = logit_lens(planted.model, inputs, answers=["A", "B"], top_k=0)
        lead = answer_lead(table, "B", {"A": [a], "B": [b]})
        last = inputs["input_ids"].shape[1] - 1
        readable = lead[lead["lead"].abs() > 1e-3]
        assert (readable["column"] == last).all() and (readable["lead"] > 5).all()
        assert readable["layer"].tolist() == list(range(first, LAYERS))
        assert (readable["rank"] == 0).all() and (readable["leads"] == 1).all()
        assert lead.drop(readable.index)["lead"].abs().max() < 1e-9


def test_a_token_has_rows_where_it_runs(make: Any) -> None:
    """A summary that runs in two layers only; frames that attend in one."""
    model = make(tiny.both_streams((PROJECTED,) * 4, (FULL,) * 4))
    attending = Route(
        tiny.LAYERS,
        tuple(
            (s, cells)
            for (s, _), cells in zip(
                model.current_route.rows,
                ((PROJECTED, ATTEND, PROJECTED, PROJECTED), (FULL, FULL, KEYS, KEYS)),
                strict=True,
            )
        ),
    )
    inputs = padded_batch(model)
    with model.route(attending):
        table = logit_lens(model, inputs, answers=[3], top_k=0)
    found = table.groupby(["pathway", "site"], observed=True)["layer"].agg(lambda x: sorted(set(x)))
    assert found["frames", "resid_post"] == [1] and ("frames", "resid_pre") not in found
    assert found["summary", "resid_post"] == [0, 1] and found["summary", "resid_pre"] == [0]
    assert found["text", "resid_post"] == list(range(tiny.LAYERS))
    sound: Any = table[table["pathway"] != "text"]
    assert (sound["end_s"] > sound["start_s"]).all() and (sound["clip"] >= 0).all()
    assert set(sound.loc[sound["row"] == 1, "clip"]) == {0, 1}


def test_only_the_tokens_asked_for(pal: Any) -> None:
    inputs = padded_batch(pal)
    table: Any = logit_lens(pal, inputs, tokens=[-1], top_k=2)
    width = inputs["input_ids"].shape[1]
    assert set(table["column"]) == {width - 1}
    assert table.groupby(["row", "layer", "site"]).size().eq(2).all()
    newline = pal.tokenizer.decode([int(inputs["input_ids"][0, -1])])
    assert set(table["token"]) == {newline}
    entry = table.iloc[0]
    assert entry["entry"] == pal.tokenizer.decode([entry["id"]])


def test_what_cannot_be_read_is_said(pal: Any) -> None:
    inputs = padded_batch(pal)
    frames = int((pal.layout(inputs).stream[1] == 0).nonzero()[0])
    with pytest.raises(PromptError, match="runs in no layer"):
        logit_lens(pal, inputs, tokens=[frames])
    with pytest.raises(PalscopeError, match="nothing to list"):
        logit_lens(pal, inputs, top_k=0)
    with pytest.raises(PalscopeError, match="begin with the same token"):
        logit_lens(pal, inputs, answers=["crab cake", "crab apple"])
    with pytest.raises(PalscopeError, match="no id of a vocabulary"):
        logit_lens(pal, inputs, answers=[vocabulary.COUNT])
    with pytest.raises(PalscopeError, match="answer is empty"):
        logit_lens(pal, inputs, answers=[""])


def test_a_choice_is_read_in_both_spellings_and_shared_beginnings_are_left_out(pal: Any) -> None:
    found = spellings(pal, ["rain", "rooster", "sea waves"])
    words = {choice: [pal.tokenizer.decode([i]) for i in ids] for choice, ids in found.items()}
    assert words["rain"] == ["rain", " rain"] and words["sea waves"] == ["sea", " sea"]
    with pytest.raises(PalscopeError, match="sea lion, sea waves"):
        spellings(pal, ["sea lion", "rain", "sea waves"])
    # "c, rick, et" and "c, rying": in a text they differ, but as they are answered they do not
    with pytest.raises(PalscopeError, match="crying baby"):
        spellings(pal, ["crying baby", "cricket", "rain"])


def test_between_answers_that_begin_alike_a_later_token_decides(pal: Any) -> None:
    inputs = pal.inputs("What is it?", np.zeros(16_000, np.float32))
    asked, entries = deciding_entries(pal, inputs, "sea water", "sea waves")
    words = {choice: [pal.tokenizer.decode([i]) for i in ids] for choice, ids in entries.items()}
    assert words == {"sea water": [" water"], "sea waves": [" waves"]}
    assert pal.tokenizer.decode(asked["input_ids"][0, -1:]) == "sea"
    same, entries = deciding_entries(pal, inputs, "rain", "rooster")
    assert same["input_ids"].shape == inputs["input_ids"].shape
    assert entries == spellings(pal, ["rain", "rooster"])


def test_the_best_spelling_counts() -> None:
    planted = plant("lal")
    a, b = planted.answers
    table = logit_lens(planted.model, planted.inputs("A", 5), tokens=[-1], answers=range(11))
    whole = {"A": [a, WORDS.index("which")], "B": [b], "C": [WORDS.index("it")]}
    lead = answer_lead(table, "A", whole).set_index(["layer", "site"])["lead"]
    assert lead[3, "resid_post"] == pytest.approx(7.54, abs=0.01)  # A's spelling against C's 0
    beaten = answer_lead(table, "B", whole).set_index(["layer", "site"])["lead"]
    assert beaten[3, "resid_post"] == pytest.approx(-15.08, abs=0.01)
    with pytest.raises(PalscopeError, match="one of two choices"):
        answer_lead(table, "D", whole)


@pytest.mark.parametrize(("pathway", "first"), [("lal", 2), ("plits", 2), ("relay", 4)])
def test_by_depth_the_answer_is_readable_from_the_planted_layer_on(
    pathway: Any, first: int
) -> None:
    planted = plant(pathway)
    choices = {"A": [planted.answers[0]], "B": [planted.answers[1]]}
    inputs = planted.inputs("A", 5)
    lens = logit_lens(planted.model, inputs, answers=["A", "B"], top_k=0)
    moved = written_by_pathway(planted.model, inputs, answers=["A", "B"], top_k=0)
    table = by_depth(answer_lead(lens, "A", choices), written_lead(moved, "A", choices))
    at: Any = table.set_index(["place", "depth"])["lead"]
    assert (at["last token"] > 5).tolist() == [depth >= first for depth in range(LAYERS + 1)]
    wrote = at["written by frames"]
    assert (wrote > 5).tolist() == [d == first and pathway != "relay" for d in range(1, LAYERS + 1)]
    if pathway == "plits":
        assert at["frames"].abs().max() < 1e-9
    start = readable_from(table).set_index("place")["readable_from"]
    assert start["last token"] == first


def test_five_entries_are_listed_unless_more_are_asked_for() -> None:
    planted = plant("lal")
    inputs = planted.inputs("A", 5)
    for settings, count in (({}, 5), ({"top_k": 2}, 2)):
        table: Any = logit_lens(planted.model, inputs, **settings)
        ranks = table.groupby(["layer", "column", "site"])["rank"].apply(sorted)
        assert (ranks.map(len) == count).all() and len(ranks) > 0


def test_what_is_readable_for_a_while_only_is_not_readable_from_there() -> None:
    table = pd.DataFrame(
        {
            "place": ["frames"] * 5 + ["last token"] * 2,
            "depth": [0, 1, 2, 3, 4, 0, 1],
            "leads": [0.1, 0.9, 0.4, 0.5, 1.0, 1.0, 0.0],
        }
    )
    start = readable_from(table).set_index("place")["readable_from"]
    assert start["frames"] == 3 and np.isnan(start["last token"])

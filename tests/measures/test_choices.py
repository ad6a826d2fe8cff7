"""Answers ranked under interventions: the evaluation's ranking, and full passes, say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._models.scoring import answer_ids, continued
from palscope._routing import Route
from palscope._routing.depths import Placement, rerouted_depths
from palscope.errors import PalscopeError, RouteError
from palscope.evaluation._ranking import ChoiceQuestion, ModelAnswerer, rankings
from palscope.interventions import Address, Knockout, Patch, Reroute, Sound, Text, Zero, intervene
from palscope.interventions._apply import Intervention
from palscope.measures._choices import choice_logprobs, placed_choices
from tests.measures.conftest import padded_batch

CHOICES = ["dog", "sea waves", "crackling fire"]
SAMPLES = np.random.default_rng(0).normal(size=16_000).astype(np.float32)


def whole_passes(
    model: Any, inputs: Any, interventions: list[Intervention | Reroute]
) -> list[float]:
    """Each choice by one pass over prompt and choice, without a cache."""
    found = []
    for choice in CHOICES:
        ids = answer_ids(model.processor, choice)
        whole = continued(inputs, ids[:-1])
        with torch.no_grad(), intervene(model, whole, interventions):
            logp = model.model(**whole).logits[0, -len(ids) :].double().log_softmax(-1)
        found.append(float(logp[torch.arange(len(ids)), ids].sum()))
    return found


def test_without_interventions_it_is_the_evaluations_ranking(pal: Any) -> None:
    inputs = pal.inputs("what?", SAMPLES)
    (ranking,) = rankings(
        ModelAnswerer(pal.model, pal.processor), [ChoiceQuestion([SAMPLES], "what?", CHOICES)]
    )
    found = choice_logprobs(pal, inputs, CHOICES)
    assert found.tolist() == pytest.approx(ranking.logprobs, abs=1e-4)
    assert len(set(found.round(2))) == len(CHOICES)


@pytest.mark.parametrize(
    "address",
    [
        Address("pattern", Sound(stream="summary")),
        Address("pattern", Sound(0.2, 0.5), (0, 2), (1,)),
        Address("pattern", Sound(), queries=Text(-1)),
        Address("pattern", Sound(stream="frames"), queries=Sound(stream="summary")),
    ],
    ids=["all text", "one head", "last token", "sound reads"],
)
def test_choices_are_cut_off_as_in_full_passes(pal: Any, address: Address) -> None:
    inputs = pal.inputs("what?", SAMPLES)
    # In a pass over prompt and choice, the prompt's last token is not the last.
    fixed = address
    if address.queries == Text(-1):
        last = inputs["input_ids"].shape[1] - 1
        fixed = Address("pattern", Sound(), queries=Text(last))
    found = choice_logprobs(pal, inputs, CHOICES, [Knockout(address)])
    assert found.tolist() == pytest.approx(whole_passes(pal, inputs, [Knockout(fixed)]), abs=1e-4)
    assert not np.allclose(found, choice_logprobs(pal, inputs, CHOICES), atol=1e-3)


@pytest.mark.parametrize("tokens", [Text(), Text("what"), Sound(stream="summary")])
def test_choices_are_patched_as_in_full_passes(pal: Any, tokens: Any) -> None:
    inputs = pal.inputs("what?", SAMPLES)
    patch = Patch(Address("resid_pre", tokens, layers=(1,)), Zero())
    found = choice_logprobs(pal, inputs, CHOICES, [patch])
    assert found.tolist() == pytest.approx(whole_passes(pal, inputs, [patch]), abs=1e-4)
    assert not np.allclose(found, choice_logprobs(pal, inputs, CHOICES), atol=1e-3)


def test_knockouts_and_routes_compose(pal: Any) -> None:
    inputs = pal.inputs("what?", SAMPLES)
    trained = pal.current_route
    made: list[Intervention | Reroute] = [
        Reroute(trained.mute("frames", [2])),
        Knockout(Address("pattern", Sound(stream="summary"), (1, 3))),
    ]
    found = choice_logprobs(pal, inputs, CHOICES, made)
    assert found.tolist() == pytest.approx(whole_passes(pal, inputs, made), abs=1e-4)
    assert pal.current_route == trained


def test_encoded_clips_give_the_same(pal: Any) -> None:
    inputs = pal.inputs("what?", SAMPLES)
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    found = choice_logprobs(pal, ids | {"audio": pal.encode_audio(inputs)}, CHOICES)
    assert found.tolist() == pytest.approx(choice_logprobs(pal, inputs, CHOICES), abs=1e-5)


def test_several_prompts_are_refused(pal: Any) -> None:
    with pytest.raises(PalscopeError, match="inputs of one row"):
        choice_logprobs(pal, padded_batch(pal), CHOICES)


def test_placements_are_those_of_the_evaluation(pal: Any) -> None:
    """As `analyses/injection_depth.py` asks: the plain model on each route, without hooks."""
    placements = rerouted_depths(pal.current_route)
    before = pal.current_route
    (table,) = placed_choices(pal, pal.inputs("what?", SAMPLES), [CHOICES], placements)
    assert pal.current_route == before
    assert len(table) == len(placements) * len(CHOICES)
    answerer = ModelAnswerer(pal.model, pal.processor)
    for placement in placements:
        with pal.model.routed(placement.route):
            (ranking,) = rankings(answerer, [ChoiceQuestion([SAMPLES], "what?", CHOICES)])
        rows = table[(table["placement"] == placement.name) & (table["family"] == placement.family)]
        assert rows["choice"].tolist() == CHOICES
        assert rows["logprob"].tolist() == pytest.approx(ranking.logprobs, abs=1e-4)
        assert set(rows["layers"]) == {placement.layers}
        assert set(rows["first_layer"]) == {placement.first_layer}
    assert table.groupby("placement")["logprob"].first().round(3).nunique() > 4


def test_a_placement_without_weights_is_refused(pal: Any) -> None:
    wrong = Placement("x", "x", Route.plits(7), 7, 0)
    with pytest.raises(RouteError):
        placed_choices(pal, pal.inputs("what?", SAMPLES), [CHOICES], [wrong])

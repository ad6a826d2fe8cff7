"""Right answers are counted by domain; a planted circuit in or out of reach makes them right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._routing.depths import rerouted_depths
from palscope._statistics import wilson
from palscope.evaluation._accuracy import accuracy, ranked_answers
from palscope.evaluation._items import EvaluationItem
from palscope.evaluation._ranking import ChoiceQuestion
from tests.planted import LAYERS, Planted, plant


class Certain:
    """Gives choices the log-probabilities that the clip's samples hold."""

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        return [each.waveforms[0].tolist() for each in asked]

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        raise AssertionError("nothing is written")


def item(
    key: str, domain: str, answer: str, choices: tuple[str, ...], heard: Any
) -> EvaluationItem:
    return EvaluationItem(
        key, domain, "?", answer, choices, (answer,), lambda: [np.array(heard, float)]
    )


def answers_of(items: list[EvaluationItem], answerer: Any = None, batch_size: int = 2) -> Any:
    asked = [each.asked() for each in items]
    return ranked_answers(answerer or Certain(), items, asked, batch_size=batch_size)


def test_a_row_a_question_in_order() -> None:
    table = answers_of(
        [
            item("a", "sound", "cat", ("dog", "cat"), [-4.0, -1.5]),
            item("b", "speech", "one", ("one", "two", "six"), [-3.0, -2.0, -9.0]),
            item("c", "sound", "dog", ("dog",), [-1.0]),
        ]
    )
    assert table["clip"].to_list() == ["a", "b", "c"]
    assert table["best"].to_list() == ["cat", "two", "dog"]
    assert table["correct"].to_list() == [True, False, True]
    assert table["chance"].to_list() == [1 / 2, 1 / 3, 1]
    np.testing.assert_allclose(table["margin"], [2.5, -1.0, np.nan])


def test_accuracy_is_kept_apart_by_domain_and_model() -> None:
    import pandas as pd

    right = item("a", "sound", "cat", ("dog", "cat"), [-4.0, -1.0])
    wrong = item("b", "sound", "dog", ("dog", "cat"), [-4.0, -1.0])
    other = item("c", "speech", "one", ("one", "two", "six", "ten"), [-1.0, -2.0, -9.0, -9.0])
    tables = [
        answers_of([right, right, right, wrong, other]).assign(placement="x"),
        answers_of([wrong, other, other]).assign(placement="y"),
    ]
    answers = pd.concat(tables).assign(clip=[f"clip {n}" for n in range(8)])
    scores = accuracy(answers, ["placement"]).set_index(["placement", "domain"])
    assert scores["correct"].to_dict() == {
        ("x", "sound"): 3,
        ("x", "speech"): 1,
        ("y", "sound"): 0,
        ("y", "speech"): 2,
    }
    assert scores["accuracy"][("x", "sound")] == 0.75
    first = scores.loc[("x", "sound")]
    assert (first["low"], first["high"]) == wilson(3, 4)
    # three questions about one clip are no three clips
    alike = accuracy(pd.concat(tables).assign(clip="clip"), ["placement"])
    assert alike["low"].isna().tolist() == [True, False, False, True]  # but for one question
    assert first["chance"] == 0.5 and scores["chance"][("x", "speech")] == 0.25
    assert first["margin"] == pytest.approx((3 * 3 - 3) / 4)


class PlantedAnswerer:
    """Asks a planted model; a "waveform" is the class of the event and its token."""

    def __init__(self, planted: Planted) -> None:
        self.planted = planted

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        rows: list[list[float]] = []
        for each in asked:
            is_a, at_token = (int(value) for value in each.waveforms[0])
            inputs = self.planted.inputs("A" if is_a else "B", at_token, nuisance=at_token)
            with torch.no_grad():
                logp = self.planted.model.model(**inputs).logits[0, -1].log_softmax(-1)
            rows.append([float(logp[token]) for token in self.planted.answers])
        return rows

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        raise AssertionError("nothing is written")


@pytest.mark.parametrize("pathway", ["lal", "summary", "plits"])
@pytest.mark.parametrize("layer", [0, 2])
def test_accuracy_falls_to_chance_where_the_planted_layer_is_out_of_reach(
    pathway: Any, layer: int
) -> None:
    planted = plant(pathway, layer=layer)
    items = [
        item(f"{answer}{at}", "sound", answer, ("A", "B"), [answer == "A", at])
        for at in (0, 4, 8)
        for answer in ("A", "B")
    ]
    model = planted.model.model
    found: dict[bool, set[float]] = {True: set(), False: set()}
    for placement in rerouted_depths(model.route):
        with model.routed(placement.route):
            scores = accuracy(answers_of(items, PlantedAnswerer(planted), batch_size=4))
        reached = layer in placement.route.layers(planted.stream)
        found[reached] |= set(scores["accuracy"])
    assert found == {True: {1.0}, False: {0.5}}
    assert layer < LAYERS

"""Planted edges are found: by exact effects nothing else, by estimates they stand out."""

from __future__ import annotations

import numpy as np
import pytest

from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import eap, eap_ig
from palscope._circuits.metrics import edge_auroc
from palscope._circuits.runs import CircuitRuns
from palscope.measures import Answers
from tests.circuits.known import either, known

KNOWN = known()


@pytest.mark.parametrize("name", KNOWN)
def test_planted_edges_are_told_from_all_others(name: str) -> None:
    one = KNOWN[name]()
    model, graph, true = one.planted.model, one.graph(), one.marks(one.graph())
    answers = Answers((), *one.planted.answers)
    exact = exact_effects(model, *one.inputs(), graph, answers=answers)
    assert edge_auroc(exact.total, true) == 1.0
    assert np.abs(exact.total[true]).min() > 3
    assert not exact.total[~true].any()
    last = graph.slots == "answer"
    np.testing.assert_array_equal(exact.direct[last], exact.total[last])

    along = eap_ig(model, *one.inputs(), graph, answers=answers, steps=3)
    assert edge_auroc(along, true) == 1.0
    assert np.abs(along[true] / exact.total[true] - 1).max() < 0.5
    least = np.abs(exact.total[true]).min()
    assert np.abs(along[~true]).max() < 0.15 * least  # norms' scale, midway

    first = eap(model, *one.inputs(), graph, answers=answers)
    if name == "saturated":  # no slope at the clean run leads through the gate, which is shut
        assert np.abs(first[true][:2]).max() < 1e-3 < 20 < least
    else:
        assert np.abs(first[true] / exact.total[true] - 1).max() < 0.75


def test_of_two_that_do_the_same_denoising_sees_both_and_noising_neither() -> None:
    one = either()
    model, graph, true = one.planted.model, one.graph(), one.true(one.graph())
    given = {"answers": Answers((), *one.planted.answers)}
    runs = CircuitRuns(model, *one.inputs(), graph, **given)
    whole = runs.everything - runs.nothing
    assert whole > 20
    heads = [edge for edge in true if graph.slots[edge] != "answer"]
    assert len(heads) == 4
    noising = exact_effects(model, *one.inputs(), graph, edges=heads, **given).total[heads]
    assert np.abs(noising).max() < 0.05 * whole
    back = exact_effects(model, *one.inputs(), graph, edges=heads, direction="denoising", **given)
    assert back.total[heads].min() > 0.9 * whole
    along = eap_ig(model, *one.inputs(), graph, **given)  # between the two: the line passes both
    assert edge_auroc(along, one.marks(graph)) == 1.0

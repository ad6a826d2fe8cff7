"""Planted edges are found: by exact effects nothing else, by estimates they stand out."""

from __future__ import annotations

import numpy as np
import pytest

from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import eap, eap_ig
from palscope._circuits.metrics import edge_auroc
from palscope.measures import Answers
from tests.circuits.known import known

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
    last = graph.ends()[2] == "answer"
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

"""Exact effects of edges find what was planted."""

from __future__ import annotations

import numpy as np
import pytest

from palscope._circuits.exact import exact_effects
from palscope._circuits.metrics import edge_auroc
from palscope.measures import Answers
from tests.circuits.known import known

KNOWN = known()


@pytest.mark.parametrize("name", KNOWN)
def test_exact_finds_the_planted_edges(name: str) -> None:
    one = KNOWN[name]()
    graph = one.graph()
    clean, corrupt = one.inputs()
    scores = exact_effects(
        one.planted.model, clean, corrupt, graph, answers=Answers((), *one.planted.answers)
    )
    true = np.zeros(graph.n_edges, bool)
    true[one.true(graph)] = True
    print(name, scores[true], np.abs(scores[~true]).max(), (np.abs(scores) > 1e-3).sum())
    assert edge_auroc(scores, true) == 1.0

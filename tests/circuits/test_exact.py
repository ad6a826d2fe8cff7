"""Exact effects of edges find what was planted, and nothing else."""

from __future__ import annotations

import numpy as np

from palscope._circuits.exact import exact_effects
from palscope.measures import Answers
from tests.circuits.known import known

KNOWN = known()


def test_some_edges_alone_are_the_same() -> None:
    one = KNOWN["inhibitor"]()
    graph = one.graph()
    given = {"answers": Answers((), *one.planted.answers)}
    every = exact_effects(one.planted.model, *one.inputs(), graph, **given)
    edges = [*one.true(graph)[:3], 17, 400]
    some = exact_effects(one.planted.model, *one.inputs(), graph, edges=edges, **given)
    assert some.runs == 2 < every.runs  # the third leads into the answer; others move nothing
    for mine, theirs in ((some.total, every.total), (some.direct, every.direct)):
        np.testing.assert_allclose(mine[edges], theirs[edges], atol=1e-5)
        assert np.isnan(mine).sum() == graph.n_edges - 5

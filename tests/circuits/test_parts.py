"""What is drawn of a circuit: all of it that its run depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palscope._circuits.gradients import eap
from palscope._circuits.metrics import faithfulness
from palscope._circuits.parts import circuit_parts
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, on_the_way, ranked, without
from tests.circuits.test_runs import ANSWERS, pair_of


@pytest.mark.parametrize("name", ["pal", "whisper"])
def test_edges_that_are_not_drawn_change_nothing(name: str) -> None:
    model, clean, corrupt, graph = pair_of(name)
    runs = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS)
    scores = eap(model, clean, corrupt, graph, answers=ANSWERS)
    source, target = graph.sources, graph.targets
    left_out = 0
    for count in (5, 40, graph.n_edges // 2):
        chosen = ranked(scores)[:count]
        circuit = circuit_of(graph, chosen)
        parts = circuit_parts(graph, chosen, scores)
        drawn = torch.zeros(graph.n_edges, dtype=torch.bool)
        drawn[parts.edges["edge"].tolist()] = True
        metric = runs.metric(circuit)
        assert runs.metric(drawn) == pytest.approx(metric, abs=1e-5)
        assert runs.faithfulness(circuit) == pytest.approx(
            faithfulness(metric, runs.nothing, runs.everything)
        )
        left_out += count - len(parts.edges)
        assert parts.size == count
        nodes = set(parts.nodes["node"])
        assert nodes == {*parts.edges["source"], *parts.edges["target"], len(graph.nodes) - 1}
        # Each node that is drawn, but sound, is told something, and tells something.
        inner = [n for n in nodes if graph.nodes[n].kind not in ("sound", "answer")]
        assert set(inner) <= set(parts.edges["source"]) & set(parts.edges["target"])
        named = parts.nodes.set_index("node")["name"].to_dict()
        assert named == {node: graph.name(node) for node in nodes}
        assert np.array_equal(parts.edges["score"], scores[parts.edges["edge"]])
    assert left_out, "some edge lies on no way, or this test sees nothing"
    whole = torch.ones(graph.n_edges, dtype=torch.bool)
    texts = np.array([node.kind == "text" for node in graph.nodes])
    assert not on_the_way(graph, whole).numpy()[texts[source]].any(), "both runs have the same text"
    head = next(n for n, node in enumerate(graph.nodes) if node.kind == "head")
    rest = without(graph, whole, [head]).numpy()
    assert np.array_equal(~rest, (source == head) | (target == head))

"""A circuit's run against the batched engine: one edge out, a node's inputs out, and its ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import eap
from palscope._circuits.runs import CircuitRuns
from palscope.interventions import Address, Patch, Resample, Sound, Text, run_cells
from palscope.measures import Answers
from tests.circuits.test_graph import graph_of, opened
from tests.hooks.conftest import noise

ANSWERS = Answers((), 5, 7)
NAMES = ["pal", "frozen", "queries", "qwen2_audio", "whisper"]


def pair_of(name: str):
    model, clean = opened(name)
    corrupt = model.inputs("" if name == "whisper" else "which digit is first?", noise(1.0, 1))
    if name == "qwen2_audio":
        corrupt = model.inputs("what?", noise(1.0, 1))
    return model, clean, corrupt, graph_of(model, clean)


@pytest.mark.parametrize("name", NAMES)
def test_a_circuit_without_one_edge_is_the_edge_exchanged(name: str) -> None:
    model, clean, corrupt, graph = pair_of(name)
    runs = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS)
    whole = torch.ones(graph.n_edges, dtype=torch.bool)
    assert runs.metric(whole) == pytest.approx(runs.everything, abs=1e-4)
    assert runs.metric(~whole) == pytest.approx(runs.nothing, abs=1e-4)
    scores, slots = eap(model, clean, corrupt, graph, answers=ANSWERS), graph.ends()[2]
    edges = [
        int(edge)
        for slot in np.unique(slots)
        for edge in np.argsort(-np.abs(scores) * (slots == slot))[:2]
    ]
    exact = exact_effects(model, clean, corrupt, graph, answers=ANSWERS, edges=edges).total
    for edge in edges:
        assert exact[edge]
        circuit = whole.clone()
        circuit[edge] = False
        change = runs.metric(circuit) - runs.everything
        assert change == pytest.approx(exact[edge], abs=1e-4 + 1e-2 * abs(exact[edge]))


@pytest.mark.parametrize("name", NAMES[:3])
def test_without_what_some_heads_hear_they_are_patched(name: str) -> None:
    model, clean, corrupt, graph = pair_of(name)
    runs = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS)
    heads = [i for i, node in enumerate(graph.nodes) if node.kind == "head" and node.head == 1]
    inside = ~np.isin(graph.ends()[1], heads)
    patch = [
        Patch(Address("head_output", at, None, (1,)), Resample(corrupt)) for at in (Text(), Sound())
    ]
    logits = run_cells(model, clean, [patch])[0]
    expected = float(logits[ANSWERS.clean] - logits[ANSWERS.corrupt])
    assert expected != pytest.approx(runs.everything, abs=1e-3)
    assert runs.metric(torch.from_numpy(inside)) == pytest.approx(expected, abs=1e-4)

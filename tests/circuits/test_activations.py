"""EAP-IG along nodes' outputs: a stage's edges sum to what exchanging all of its outputs does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palscope._circuits.activations import eap_ig_activations
from palscope._circuits.metrics import edge_auroc
from palscope._circuits.runs import CircuitRuns
from palscope.measures import Answers
from tests.circuits.known import known
from tests.circuits.test_runs import ANSWERS, pair_of


def test_scores_of_a_stage_sum_to_its_nodes_exchanged_together() -> None:
    model, clean, corrupt, graph = pair_of("pal")
    scores = eap_ig_activations(model, clean, corrupt, graph, answers=ANSWERS, steps=4)
    runs = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS)
    stages = np.array([node.stage for node in graph.nodes])[graph.sources]
    exact = {
        stage: runs.metric(torch.from_numpy(stages != stage)) - runs.everything
        for stage in range(-1, len(graph.stages))
    }
    largest = max(map(abs, exact.values()))
    assert largest > 0.1
    for stage, effect in exact.items():
        assert scores[stages == stage].sum() == pytest.approx(effect, abs=0.02 * largest)


def test_a_gate_that_is_shut_is_seen_through() -> None:
    one = known()["saturated"]()
    graph, answers = one.graph(), Answers((), *one.planted.answers)
    found = eap_ig_activations(one.planted.model, *one.inputs(), graph, answers=answers, steps=2)
    assert edge_auroc(found, one.marks(graph)) == 1.0

"""A circuit's run against the batched engine: one edge out, a node's inputs out, and its ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import eap
from palscope._circuits.graph import Graph
from palscope._circuits.outside import mean_writes
from palscope._circuits.runs import CircuitRuns
from palscope._hooks import HookedAudioModel
from palscope.interventions import Address, Patch, Resample, Sound, Text, run_cells
from palscope.measures import Answers
from tests import tiny
from tests.circuits.test_graph import QUESTION, graph_of, opened
from tests.hooks.conftest import noise

ANSWERS = Answers((), 5, 7)
NAMES = ["pal", "frozen", "queries", "granite", "qwen2_audio", "whisper"]


def pair_of(name: str) -> tuple[HookedAudioModel, dict[str, Tensor], dict[str, Tensor], Graph]:
    """A tiny model, the same question about two clips of noise, and the graph."""
    model, clean = opened(name)
    question = {"whisper": "", "qwen2_audio": "what?"}.get(name, QUESTION)
    seconds = 0.6 if name == "granite" else 1.0
    return model, clean, model.inputs(question, noise(seconds, 1)), graph_of(model, clean)


@pytest.mark.parametrize("name", NAMES)
def test_a_circuit_without_one_edge_is_the_edge_exchanged(name: str) -> None:
    model, clean, corrupt, graph = pair_of(name)
    runs = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS)
    whole = torch.ones(graph.n_edges, dtype=torch.bool)
    assert runs.metric(whole) == pytest.approx(runs.everything, abs=1e-4)
    assert runs.metric(~whole) == pytest.approx(runs.nothing, abs=1e-4)
    scores, slots = eap(model, clean, corrupt, graph, answers=ANSWERS), graph.slots
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
    inside = ~np.isin(graph.targets, heads)
    patch = [
        Patch(Address("head_output", at, None, (1,)), Resample(corrupt)) for at in (Text(), Sound())
    ]
    logits = run_cells(model, clean, [patch])[0]
    expected = float(logits[ANSWERS.clean] - logits[ANSWERS.corrupt])
    assert expected != pytest.approx(runs.everything, abs=1e-3)
    assert runs.metric(torch.from_numpy(inside)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["pal", "frozen", "whisper"])
def test_what_is_outside_may_be_the_corrupt_run_s_own_sums(name: str) -> None:
    """Writes of the corrupt run, put in place by sums, are the corrupt run."""
    model, clean, corrupt, graph = pair_of(name)
    by_run = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS)
    by_sums = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS, outside=by_run.corrupt)
    assert by_sums.nothing == pytest.approx(by_run.nothing, abs=1e-4)
    some = torch.from_numpy(np.random.default_rng(0).random(graph.n_edges) < 0.5)
    assert by_sums.metric(some) == pytest.approx(by_run.metric(some), abs=1e-4)


@pytest.mark.parametrize("outside", ["zero", "mean"])
@torch.no_grad()
def test_heads_outside_may_write_nothing_or_a_mean(outside: Any) -> None:
    model, clean, corrupt, graph = pair_of("pal")
    top = tiny.LAYERS - 1
    last = [i for i, n in enumerate(graph.nodes) if n.kind == "head" and n.layer == top]
    inside = torch.from_numpy(~np.isin(graph.sources, last))
    hook = f"blocks.{top}.attn.hook_z"
    seen: list[Tensor] = []

    def keep(z: Tensor, hook: Any) -> None:
        seen.append(z[:, -1].clone())

    for each in (clean, corrupt):
        model.run_with_hooks(each, fwd_hooks=[(hook, keep)])
    value = torch.stack(seen).mean(0) if outside == "mean" else torch.zeros_like(seen[0])

    def put(z: Tensor, hook: Any) -> Tensor:
        return torch.cat([z[:, :-1], value[:, None]], 1)

    logits = model.run_with_hooks(clean, fwd_hooks=[(hook, put)])[0, -1]
    expected = float(logits[ANSWERS.clean] - logits[ANSWERS.corrupt])
    if outside == "mean":
        outside = mean_writes(model, [(clean, graph), (corrupt, graph)], ANSWERS)
    runs = CircuitRuns(model, clean, corrupt, graph, answers=ANSWERS, outside=outside)
    assert runs.metric(torch.ones_like(inside)) == pytest.approx(runs.everything, abs=1e-4)
    assert runs.metric(inside) == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(runs.everything, abs=2e-3)

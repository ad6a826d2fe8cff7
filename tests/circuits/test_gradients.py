"""Estimates by gradients against differences of exact effects, and where they must fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._circuits.baselines import (
    attention_mass_of_edges,
    gradient_times_input,
    random_scores,
)
from palscope._circuits.exact import effects_of, exact_effects
from palscope._circuits.gradients import attributed, eap, eap_ig
from palscope._circuits.metrics import edge_auroc
from palscope._circuits.observed import observe
from palscope._circuits.writes import Writes, writes_of
from palscope.measures import Answers
from tests.circuits.known import known
from tests.circuits.test_graph import graph_of, opened

KNOWN = known()
ANSWERS = Answers((), 5, 7)


def a_few(writes: Writes, seed: int) -> Writes:
    """Random writes, of one node in five alone."""
    generator = torch.Generator().manual_seed(seed)

    def chosen(old: Tensor) -> Tensor:
        kept = torch.rand(len(old), 1, 1, generator=generator) < 0.2
        return torch.randn(old.shape, generator=generator) * kept

    return Writes(
        tuple(map(chosen, writes.residual)),
        {node: torch.randn(old.shape, generator=generator) for node, old in writes.own.items()},
    )


@pytest.mark.parametrize("name", ["pal", "frozen", "queries", "qwen2_audio"])
def test_an_estimate_is_the_slope_of_the_exact_effect(name: str) -> None:
    model, inputs = opened(name)
    graph = graph_of(model, inputs, 1.0)
    run = observe(model, inputs, graph, ANSWERS, gradients=True)
    writes = a_few(writes_of(model, graph, run), 0)
    step = 1e-2
    up, down = (
        effects_of(model, inputs, graph, run, writes.scaled(sign * step), ANSWERS).total
        for sign in (1, -1)
    )
    slope = (up - down) / (2 * step)
    found = attributed(model, graph, run, writes)
    assert np.abs(found).max() > 0.1
    assert np.abs(slope - found).max() < 0.01 * np.abs(found).max()


def scored(name: str, **kwargs: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    one = KNOWN[name]()
    graph = one.graph()
    model, (clean, corrupt) = one.planted.model, one.inputs()
    answers = Answers((), *one.planted.answers)
    given: Any = {"answers": answers, **kwargs}
    true = np.zeros(graph.n_edges, dtype=bool)
    true[one.true(graph)] = True
    run = observe(model, clean, graph, answers, gradients=True)
    return (
        true,
        {
            "exact": exact_effects(model, clean, corrupt, graph, **given).total,
            "EAP": eap(model, clean, corrupt, graph, **given),
            "EAP-IG": eap_ig(model, clean, corrupt, graph, **given),
            "attention": attention_mass_of_edges(model, graph, run),
            "gradient x input": gradient_times_input(model, graph, run),
            "random": random_scores(graph),
        },
    )


@pytest.mark.parametrize("name", KNOWN)
def test_the_planted_table(name: str) -> None:
    true, scores = scored(name)
    print(name, {method: round(edge_auroc(each, true), 3) for method, each in scores.items()})
    print({method: each[true].round(2).tolist() for method, each in scores.items()})

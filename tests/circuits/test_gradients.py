"""Estimates by gradients against differences of exact effects, and where they must fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._circuits.baselines import (
    attention_mass_of_edges,
    gradient_times_input,
    random_scores,
)
from palscope._circuits.exact import effects_of
from palscope._circuits.gradients import attributed
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


@pytest.mark.parametrize("name", ["pal", "frozen", "queries", "granite", "qwen2_audio"])
def test_an_estimate_is_the_slope_of_the_exact_effect(name: str) -> None:
    model, inputs = opened(name)
    graph = graph_of(model, inputs, 1.0)
    run = observe(model, inputs, graph, ANSWERS, gradients=True)
    writes = a_few(writes_of(model, graph, run), 0)
    step = 3e-3
    up, down = (
        effects_of(model, inputs, graph, run, writes.scaled(sign * step), ANSWERS).total
        for sign in (1, -1)
    )
    slope = (up - down) / (2 * step)
    found = attributed(model, graph, run, writes)
    assert np.abs(found).max() > 0.1
    assert np.abs(slope - found).max() < 0.01 * np.abs(found).max()


def test_baselines_do_not_know_the_planted_edges() -> None:
    one = KNOWN["decoy"]()
    graph = one.graph()
    answers = Answers((), *one.planted.answers)
    true = one.marks(graph)
    run = observe(one.planted.model, one.inputs()[0], graph, answers, gradients=True)
    assert edge_auroc(attention_mass_of_edges(one.planted.model, graph, run), true) < 0.6
    assert 0.2 < edge_auroc(random_scores(graph), true) < 0.8
    alone = gradient_times_input(one.planted.model, graph, run)
    # What all nodes write that say the class counts, also the last of a path; how sound came to
    # be where it is read does not, since the slope of a value is told of the value at zero.
    assert 0.9 < edge_auroc(alone, true) < 1

"""The planted circuits are where they are said to be: shown by patching heads and seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope.interventions import Address, Patch, Resample, Sound, Text, run_cells
from tests.circuits.known import Known, known
from tests.planted import HEADS, LAYERS

KNOWN = known()


@pytest.fixture(scope="module", params=KNOWN)
def one(request: Any) -> Known:
    return KNOWN[request.param]()


def differences(one: Known, cells: list[list[Patch]]) -> list[float]:
    a, b = one.planted.answers
    logits = run_cells(one.planted.model, one.inputs()[0], cells)
    return (logits[:, a] - logits[:, b]).tolist()


def test_the_pair_s_answers_differ(one: Known) -> None:
    clean, corrupt = one.inputs()
    with torch.no_grad():
        a, b = (one.planted.difference(one.planted.model(each)) for each in (clean, corrupt))
    assert a - b > 3


def test_only_the_readers_move_the_answer_and_as_they_are_said_to(one: Known) -> None:
    source = one.inputs()[1]
    heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    cells = [
        [Patch(Address("head_output", Text(), (layer,), (head,)), Resample(source))]
        for layer, head in heads
    ]
    plain, *changed = differences(one, [[], *cells])
    moved = {head: plain - each for head, each in zip(heads, changed, strict=True)}
    assert {head for head, change in moved.items() if abs(change) > 1e-3} == set(one.readers)
    for head, sign in one.readers.items():
        assert moved[head] * sign > 1


def test_only_the_true_seconds_move_the_answer(one: Known) -> None:
    source = one.inputs()[1]
    stretches = [(0.3 * number, 0.3 * number + 0.3) for number in range(4)]
    cells = [
        [Patch(Address("connector_output", Sound(*each)), Resample(source))] for each in stretches
    ]
    plain, *changed = differences(one, [[], *cells])
    for each, changed_to in zip(stretches, changed, strict=True):
        if each in [pytest.approx(true) for true in one.seconds]:
            assert plain - changed_to > 3
        else:
            assert changed_to == plain


def test_true_edges_are_in_the_graph_and_few(one: Known) -> None:
    graph = one.graph()
    true = one.true(graph)
    assert len(set(true)) == len(one.edges)
    assert graph.n_edges > 100 * len(true)
    sounds = [graph.groups[graph.nodes[int(graph.sources[edge])].group] for edge in true]
    found = {(g.start_s, g.end_s) for g in sounds if g.stream is not None}
    assert {(round(start, 6), round(end, 6)) for start, end in found} == set(one.seconds)

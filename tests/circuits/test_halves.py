"""Which pairs choose for which, and what of a circuit is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from palscope._circuits.graph import Graph
from palscope._circuits.halves import Asked, answered, halves_of, mean_scores
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.measures import Answers
from palscope.pairs import Pair, bundled_pairs
from palscope.pairs._pair import Segment
from tests.circuits.known import known
from tests.hooks.conftest import noise

PAIR = bundled_pairs()[0]
COLUMNS = ["pair", "kind", "shape", "clean", "corrupt"]


def told(*rows: tuple[str, str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


TABLE = told(
    ("a", "digit", "x", 3.0, -1.0),
    ("wrong", "digit", "x", -2.0, -1.0),
    ("b", "digit", "x", 1.0, -2.0),
    ("other-graph", "digit", "y", 1.0, -2.0),
    ("c", "digit", "x", 2.0, -2.0),
    ("other-kind", "sound", "x", 2.0, -2.0),
    ("both-clips", "digit", "x", 2.0, 0.5),
)


@pytest.mark.parametrize(("name", "own", "others"), [("a", "ac", "b"), ("b", "b", "ac")])
def test_no_pair_is_tried_on_what_it_chose(name: str, own: str, others: str) -> None:
    assert halves_of(TABLE, replace(PAIR, name=name)) == (tuple(own), tuple(others))


@pytest.mark.parametrize(
    ("name", "told_so"),
    [
        ("wrong", "does not answer both clips of wrong right"),
        ("both-clips", "ahead by 2.0 nats for the clean clip, and by 0.5"),
        ("other-graph", "no other pair"),
        ("other-kind", "no other pair"),
    ],
)
def test_a_pair_that_nothing_can_be_said_of_is_refused(name: str, told_so: str) -> None:
    with pytest.raises(PalscopeError, match=told_so):
        halves_of(TABLE, replace(PAIR, name=name))


def test_of_a_model_that_answers_nothing_all_pairs_count() -> None:
    none = told(("a", "digit", "x", -1.0, -1.0), ("b", "digit", "x", 1.0, -2.0))
    assert answered(none).tolist() == [False, True]
    assert halves_of(none, replace(PAIR, name="a")) == (("a",), ("b",))
    assert answered(TABLE).tolist() == [True, False, True, True, True, True, False]


def test_means_are_over_the_pairs_named() -> None:
    rows = {
        name: pd.DataFrame({"pair": name, "edge": [0, 1], "EAP": scores, "mine": [1.0, 2.0]})
        for name, scores in (("a", [1.0, 2.0]), ("b", [3.0, -2.0]), ("c", [100.0, 100.0]))
    }
    found = mean_scores(lambda table, name: rows[name], ("a", "b"))
    assert {name: each.tolist() for name, each in found.items()} == {
        "EAP": [2.0, 0.0],
        "mine": [1.0, 2.0],
    }


def test_seconds_of_a_circuit_are_those_that_lead_to_the_answer() -> None:
    one = known()["lal"]()
    graph = one.graph()
    clips = [Waveform(noise(1.2, seed), 16_000, "noise") for seed in (0, 1)]
    start = Segment("start", 0.0, 0.3, False)
    segments = (start, Segment("event", 0.3, 0.6, True), Segment("rest", 0.6, 1.2, False))
    pair = Pair("a", "digit", "which?", *clips, "A", "B", segments)
    asked = Asked(one.planted.model, pair, graph, *one.inputs(), Answers((), *one.planted.answers))
    read, answer = one.true(graph)
    assert asked.found(np.array([read, answer])) == {"nodes": 3, "iou": 1.0}
    # What is read and told nobody is no part of it; the head alone has heard no second.
    assert asked.found(np.array([read])) == {"nodes": 0, "iou": 0.0}
    elsewhere = graph.find("sound", _group(graph, 0.9), 1)
    wrong = graph.edge(elsewhere, int(graph.targets[read]), "v")
    assert asked.found(np.array([read, wrong, answer]))["iou"] == pytest.approx(0.5)
    everywhere = replace(pair, segments=(Segment("all", 0.0, 1.2, True),))
    assert np.isnan(replace(asked, pair=everywhere).found(np.array([read, answer]))["iou"])


def _group(graph: Graph, start: float) -> int:
    (found,) = [
        number
        for number, each in enumerate(graph.groups)
        if each.stream == "frames" and each.start_s == pytest.approx(start)
    ]
    return found

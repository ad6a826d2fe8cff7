"""A circuit's figure: where nodes stand, how wide edges are, and what is joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.errors import PalscopeError
from palscope.plots import Caption, Figure, circuit
from palscope.plots._joined import joined
from palscope.plots._network import Edges, Nodes
from tests.plots.reading import agree, named

CAPTION = Caption("a model", "which digit?", 2, "pairs")
NAN = float("nan")
GROUPS = [
    ("frames, digit", "frames", 0.0, 0.6),
    ("summary, digit", "summary", 0.0, 0.6),
    ("frames, rest", "frames", 0.6, 1.0),
    ("summary, rest", "summary", 0.6, 1.0),
    ("text 1", "", NAN, NAN),
    ("last token", "", NAN, NAN),
]


@dataclass
class Made:
    nodes: pd.DataFrame
    edges: pd.DataFrame
    groups: pd.DataFrame
    size: int


def made(nodes: list[tuple[str, int, int, int]], edges: list[tuple[int, int, str, float]]) -> Made:
    """Nodes as kind, layer, head and group; edges as source, target, slot and score."""
    groups = pd.DataFrame(GROUPS, columns=["group", "stream", "start_s", "end_s"])
    groups["in_encoder"] = groups["stream"] == "encoder"
    rows = [
        {"node": 10 * at, "kind": kind, "name": f"{kind} {at}", "layer": layer,
         "head": -1 if kind == "feature" else head, "feature": head if kind == "feature" else -1,
         **groups.iloc[group].to_dict()}
        for at, (kind, layer, head, group) in enumerate(nodes)
    ]  # fmt: skip
    lines = [(at, 10 * s, 10 * t, slot, score) for at, (s, t, slot, score) in enumerate(edges)]
    columns = ["edge", "source", "target", "slot", "score"]
    return Made(pd.DataFrame(rows), pd.DataFrame(lines, columns=columns), groups, len(lines) + 1)


def small() -> Made:
    """Sound that is read as it enters and by layer 3 alone, two heads of it, and what they tell."""
    nodes = [
        ("sound", -1, -1, 1), ("sound", 3, -1, 0), ("head", 3, 2, 5), ("head", 3, 4, 5),
        ("mlp", 7, -1, 5), ("answer", -1, -1, 5),
    ]  # fmt: skip
    edges = [(0, 2, "k", -1.0), (0, 2, "v", -2.0), (1, 3, "v", -0.1), (2, 5, "answer", -6.0),
             (3, 4, "mlp", 1.5), (4, 5, "answer", 0.3)]  # fmt: skip
    return made(nodes, edges)


def large(layers: int = 8) -> Made:
    """Three heads and a network of each layer, each of which tells all above it."""
    nodes = [("sound", -1, -1, 0)]
    for layer in range(layers):
        nodes += [("head", layer, head, 5) for head in range(3)] + [("mlp", layer, -1, 5)]
    nodes.append(("answer", -1, -1, 5))
    draw = np.random.default_rng(0)
    edges = [
        (low, high, "answer" if high == len(nodes) - 1 else "v", float(draw.normal()))
        for high in range(1, len(nodes))
        for low in range(high)
        if nodes[low][0] == "sound" or nodes[low][1] != nodes[high][1]
    ]
    return made(nodes, edges)


def held(size: int, *values: float) -> pd.DataFrame:
    rows = [{"pair": f"p{at}", "edges": count, "faithful": value * count / size, "held_out": True}
            for count in (size, 10 * size) for at, value in enumerate(values)]  # fmt: skip
    own = {"pair": "own", "edges": size, "faithful": 0.9, "held_out": False}
    return pd.DataFrame([*rows, own])


def drawn(parts: Made, *values: float) -> Figure:
    return circuit(parts, held(parts.size, *values), caption=CAPTION)


def test_nodes_stand_at_their_seconds_and_layers() -> None:
    figure = drawn(small(), 0.5)
    agree(figure)
    marks = named(figure)
    # Streams stand in the two halves of 0 to 0.6 s. Rows: layer 3 is 0, layer 7 is 1.
    summary, frames = marks["sound, summary"], marks["sound, frames"]
    np.testing.assert_allclose([summary.x, summary.y], [[0.45], [-1]])
    np.testing.assert_allclose([frames.x, frames.y], [[0.15], [-0.35]])
    # Ten steps over 1 s of sound; the last token begins a step behind it, is six wide, and 0.8 of
    # that in three places: two heads, and the network.
    heads, network = marks["head"], marks["feed-forward network"]
    np.testing.assert_allclose([heads.x, heads.y], [[1.1 + 0.06 + 0.08, 1.1 + 0.06 + 0.24], [0, 0]])
    np.testing.assert_allclose([network.x, network.y], [[1.1 + 0.06 + 0.40], [1.4]])
    np.testing.assert_allclose(marks["answer"].y, [2])
    assert heads.labels == ("2", "4")
    x, y = figure.panels[0].x, figure.panels[0].y
    assert [label for _, label in y.ticks] == ["summary", "3", "7", "answer"]
    assert x.ticks[:6][5] == (1.0, "1") and x.ticks[6:] == ((pytest.approx(1.4), "last\ntoken"),)
    rules = [mark.at for mark in figure.panels[0].marks if not isinstance(mark, Nodes | Edges)]
    assert rules == [0.0, 0.6, 1.0]


def test_edges_are_as_wide_as_their_scores_and_their_sign_is_told() -> None:
    figure = drawn(small(), 0.5)
    helps, hinders = named(figure)["helps the answer"], named(figure)["works against it"]
    # Of 6 nats 6 pixels; -1 and -2 of two slots are one line; of 0.1 and 0.3 the thinnest.
    assert helps.width.tolist() == [1.0, 3.0, 6.0] and hinders.width.tolist() == [1.0, 1.5]
    said = "sound 0 → head 2\n-3 nats when exchanged in 2 edges (k -1, v -2)"
    assert helps.hover[1] == said
    at = named(figure)["sound, summary"], named(figure)["head"]
    np.testing.assert_allclose(helps.start[1], [at[0].x[0], at[0].y[0]])
    np.testing.assert_allclose(helps.end[1], [at[1].x[0], at[1].y[0]])
    assert "between the same two nodes are one line" in figure.note
    assert "-3 nats comes in by 2 edges\n-6 nats goes out by 1 edge" in at[1].hover[0]
    lines: Any = figure.data
    assert lines["score"].dropna().tolist() == [-6.0, -3.0, 1.5, 0.3, -0.1]


def test_faithfulness_is_beside_it_and_must_be() -> None:
    figure = drawn(small(), 0.5, 0.7)
    assert "7 edges, 6 of them on a way" in figure.note
    assert "faithfulness 0.60 (0.50 to 0.70) on 2 pairs that had no part in it" in figure.note
    mean = named(figure, 1)["mean of held-out pairs"]
    np.testing.assert_allclose([mean.x, mean.y], [np.log10([7, 70]), [0.6, 6.0]])
    assert named(figure, 1)["the circuit drawn"].at == pytest.approx(np.log10(7))
    with pytest.raises(PalscopeError, match=r"7 edges is drawn beside its faithfulness.*\[5, 50\]"):
        circuit(small(), held(5, 0.5), caption=CAPTION)
    own = circuit(small(), held(7), caption=CAPTION)
    assert "nothing is held out: faithfulness 0.90 on what chose it" in own.note


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (600, ""),
        (200, "Heads and network of a layer at the same positions are one."),
        (80, "2 neighbouring layers at the same positions are one node."),
        (5, "8 neighbouring layers at the same positions are one node."),
    ],
)
def test_what_is_joined_keeps_the_sums_between_its_ends(most: int, said: str) -> None:
    parts = large()
    shown = joined(parts.nodes, parts.edges, most)
    assert " ".join(shown.said).startswith(said) and len(shown.edges) <= most
    of = {member: at for at, node in enumerate(shown.nodes) for member in node["members"]}
    assert sorted(of) == parts.nodes["node"].tolist(), "every node is in one"
    sums: dict[tuple[int, int], float] = {}
    for edge in parts.edges.to_dict("records"):
        ends = of[edge["source"]], of[edge["target"]]
        sums[ends] = sums.get(ends, 0.0) + edge["score"]
    assert sum(node["inside"] for node in shown.nodes) == pytest.approx(
        sum(score for (source, target), score in sums.items() if source == target)
    )
    between = {ends: score for ends, score in sums.items() if ends[0] != ends[1]}
    assert {(e["source"], e["target"]): e["score"] for e in shown.edges} == pytest.approx(between)
    if most == 80:
        agree(circuit(parts, held(parts.size, 0.5), caption=CAPTION, most=most))


def test_heads_of_a_layer_are_joined_first_and_say_so() -> None:
    heads = [("head", 0, head, 5) for head in range(12)]
    nodes = [("sound", 0, -1, 0), *heads, ("mlp", 0, -1, 5), ("answer", -1, -1, 5)]
    edges = [(0, head, "v", -1.0) for head in range(1, 13)]
    edges += [(head, 14, "answer", -1.0) for head in range(1, 13)] + [(13, 14, "answer", 1.0)]
    parts = made(nodes, edges)
    shown = joined(parts.nodes, parts.edges, 20)
    assert shown.said == ("Heads of a layer at the same positions are one node.",)
    assert [each["label"] for each in shown.nodes] == ["", "×12", "", ""]
    assert shown.nodes[1]["name"] == "L0 12 heads at last token"
    assert [edge["score"] for edge in shown.edges] == [1.0, -12.0, -12.0]


def test_of_what_cannot_be_joined_the_strongest_is_drawn() -> None:
    nodes = [("sound", -1, -1, 0), ("answer", -1, -1, 5)]
    nodes += [("sound", layer, -1, 2) for layer in range(4)]
    edges = [(at, 1, "answer", float(at + 1)) for at in (0, 2, 3, 4, 5)]
    parts = made(nodes, edges)
    shown = joined(parts.nodes, parts.edges, 1)
    assert shown.said[-1] == "Of 2 lines the 1 strongest are drawn."
    assert [edge["score"] for edge in shown.edges] == [18.0]


def test_of_a_circuit_that_leads_nowhere_the_answer_stands_alone() -> None:
    parts = made([("answer", -1, -1, 5)], [])
    figure = drawn(parts, 0.0)
    assert [mark.name for mark in figure.panels[0].marks if isinstance(mark, Nodes)] == ["answer"]
    assert "1 edges, 0 of them on a way" in figure.note

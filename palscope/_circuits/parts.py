"""A circuit as tables, from which it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from palscope._circuits.graph import Graph
from palscope._circuits.groups import BELOW
from palscope._circuits.selection import circuit_of, on_the_way


@dataclass(frozen=True, eq=False)
class CircuitParts:
    """A circuit's nodes and edges, those on a way from sound to the answer alone.

    Attributes:
        nodes: `node` (a number), `kind` ("encoder", "sound", "text", "head", "cross_head", "mlp",
            "feature", "answer"), `name`, `layer`, `head`, `feature` (-1 where there is none; of
            sound the only layer that it enters), `group` of positions, `stream` ("" of text),
            `start_s, end_s` (NaN of text). The answer is always there.
        edges: `edge`, `source, target` (numbers of nodes), `slot` and `score`.
        groups: all positions of the graph: `group, stream, start_s, end_s`, and `in_encoder`: of
            the encoder's tokens, not of the prompt's.
        size: how many edges the circuit has, those in it that change nothing too.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
    groups: pd.DataFrame
    size: int


def circuit_parts(
    graph: Graph, edges: Int[np.ndarray, "_chosen"], scores: Float[np.ndarray, "edges"]
) -> CircuitParts:
    """A circuit in tables, as `palscope.plots.circuit` draws it.

    Edges that lie on no way from sound to the answer are left out: they change nothing in the
    circuit's run, while what is outside has the corrupt run's values.

    Args:
        graph: whose edges.
        edges: the circuit's, as `ranked(scores)[:100]`.
        scores: of all of the graph's edges: effects of noising.

    Raises:
        PalscopeError: there are no edges.
    """
    inside = np.flatnonzero(on_the_way(graph, circuit_of(graph, edges)).numpy())
    source, target = graph.sources[inside], graph.targets[inside]
    nodes = np.union1d(np.union1d(source, target), [len(graph.nodes) - 1])
    made = {"edge": inside, "source": source, "target": target, "slot": graph.slots[inside]}
    return CircuitParts(
        pd.DataFrame([_node(graph, int(node)) for node in nodes]),
        pd.DataFrame({**made, "score": scores[inside]}),
        pd.DataFrame([_group(graph, number) for number in range(len(graph.groups))]),
        len(edges),
    )


def _node(graph: Graph, number: int) -> dict[str, Any]:
    node = graph.nodes[number]
    numbers = {
        name: -1 if value is None else value
        for name in ("layer", "head", "feature")
        for value in [getattr(node, name)]
    }
    named = {"node": number, "kind": node.kind, "name": graph.name(number)}
    return {**named, **numbers, **_group(graph, node.group)}


def _group(graph: Graph, number: int) -> dict[str, Any]:
    group = graph.groups[number]
    times = {"start_s": group.start_s, "end_s": group.end_s}
    below = {"in_encoder": group.stream in BELOW}
    return {"group": group.name, "stream": group.stream or "", **times, **below}

"""Tables of an attribution graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from palscope._circuits.attribution.flow import Flow
from palscope._circuits.attribution.pruned import Part
from palscope._circuits.attribution.seconds import main_layers, sound_groups
from palscope._circuits.graph import Graph

BIASES = "biases"


def nodes_table(
    graph: Graph,
    part: Part,
    shown: Bool[np.ndarray, "nodes nodes"],
    stays: Bool[np.ndarray, "nodes"],
) -> pd.DataFrame:
    """A row a node of the part that stays."""
    entering = np.where(shown, part.edges, 0.0).sum(0)
    rows = [
        {
            **_named(graph, part, node),
            "nats": part.nats[node],
            "shown": entering[node],
            "influence": part.influence[node],
        }
        for node in np.flatnonzero(stays).tolist()
    ]
    return pd.DataFrame(rows)


def edges_table(part: Part, shown: Bool[np.ndarray, "nodes nodes"]) -> pd.DataFrame:
    """A row an edge that is shown, the most influential first."""
    source, target = shown.nonzero()
    influence = part.edge_influence[shown]
    order = np.argsort(-influence, kind="stable")
    return pd.DataFrame(
        {
            "source": source[order],
            "target": target[order],
            "nats": part.edges[shown][order],
            "influence": influence[order],
        }
    )


def seconds_table(
    graph: Graph, flow: Flow, value: float, read: Float[np.ndarray, "groups layers"]
) -> pd.DataFrame:
    """A row a stretch of sound, then of text, then the biases."""
    rows: list[dict[str, Any]] = []
    for number, layers in zip(sound_groups(graph), read, strict=True):
        group = graph.groups[number]
        first, last = main_layers(layers)
        times = {"stream": group.stream, "start_s": group.start_s, "end_s": group.end_s}
        named = {"source": group.name, **times, "nats": float(layers.sum())}
        rows.append({**named, "first_layer": first, "last_layer": last})
    nowhere = {"start_s": np.nan, "end_s": np.nan, "first_layer": -1, "last_layer": -1}
    for index, node in enumerate(graph.nodes):
        if node.kind == "text":
            name = graph.groups[node.group].name
            rows.append({"source": name, "stream": "text", "nats": flow.nodes[index], **nowhere})
    biases = float(flow.constants.sum())
    rows.append({"source": BIASES, "stream": "", "nats": biases, **nowhere})
    columns = ["source", "stream", "start_s", "end_s", "nats", "share", "first_layer", "last_layer"]
    return pd.DataFrame([{**row, "share": row["nats"] / value} for row in rows], columns=columns)


def layers_table(graph: Graph, read: Float[np.ndarray, "groups layers"]) -> pd.DataFrame:
    """A row a stretch of sound and layer."""
    names = [graph.groups[number].name for number in sound_groups(graph)]
    n_layers = graph.route.n_layers
    return pd.DataFrame(
        {
            "source": np.repeat(names, n_layers),
            "layer": np.tile(np.arange(n_layers), len(names)),
            "nats": read.flatten(),
        }
    )


def _named(graph: Graph, part: Part, node: int) -> dict[str, Any]:
    """What a node is."""
    nothing = {"layer": -1, "head": -1, "neuron": -1, "group": ""}
    if node == len(part.nats) - 1:
        return {"node": node, "kind": "bias", "name": BIASES, **nothing}
    apart = node - len(part.kept)
    neuron = part.neurons[apart] if apart >= 0 else None
    index = part.kept[node] if neuron is None else neuron.node
    mine = graph.nodes[index]
    group = graph.groups[mine.group].name
    layer = -1 if mine.layer is None else mine.layer
    if neuron is not None:
        name = f"L{layer} neuron {neuron.number} at {group}"
        own = {"layer": layer, "neuron": neuron.number, "group": group}
        return {"node": node, "kind": "neuron", "name": name, **nothing, **own}
    name = graph.name(index)
    if any(each.node == index for each in part.neurons):
        name = f"L{layer} rest of mlp at {group}"
    head = -1 if mine.head is None else mine.head
    own = {"layer": layer, "head": head, "group": group}
    return {"node": node, "kind": mine.kind, "name": name, **nothing, **own}

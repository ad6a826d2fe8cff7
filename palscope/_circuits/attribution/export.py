"""An attribution graph as circuit-tracer writes its own, for the tools that show those.

The file is one JSON object of `metadata`, `qParams`, `nodes` and `links`
(github.com/safety-research/circuit-tracer). What it calls a token is a group of positions here.

- What enters is an "embedding", in layer "E", or in the only layer that it enters.
- Heads and neurons are features ("cross layer transcoder" is what the tools know), numbered within
  their layer: heads, then as many places for the heads of a second attention, then neurons.
- A network, or what is left of it beside its neurons, is an "mlp reconstruction error": what of it
  is not told apart. Biases are one too, below all layers.
- `clerp` says in words what a node is. `activation` is its nats, `weight` an edge's, which are told
  of this answer; circuit-tracer's are of activations.
- `influence` is, as there, cumulative: the share of all influence that this node and those above it
  have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from palscope._circuits.attribution.graph import AttributionGraph
from palscope._files import write_json

FEATURE, ERROR = "cross layer transcoder", "mlp reconstruction error"


def write_graph(graph: AttributionGraph, path: str | os.PathLike[str]) -> None:
    """Writes a graph's file; its name without the ending is the graph's `slug`.

    Raises:
        PalscopeError: it cannot be written.
    """
    write_json(Path(path), graph_file(graph, Path(path).stem))


def graph_file(graph: AttributionGraph, slug: str) -> dict[str, Any]:
    """What is written."""
    groups = [group.name for group in graph.graph.groups]
    rows: list[dict[str, Any]] = graph.nodes.to_dict("records")
    influence = _cumulative(graph)
    nodes = [
        {**_named(graph, row, groups), "influence": influence[place], "activation": row["nats"]}
        for place, row in enumerate(rows)
    ]
    ids = {row["node"]: node["node_id"] for row, node in zip(rows, nodes, strict=True)}
    return {
        "metadata": {
            "slug": slug,
            "scan": graph.model,
            "transcoder_list": [],
            "prompt_tokens": groups,
            "prompt": " ".join(groups),
            "node_threshold": graph.nodes_kept,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": [
            {"source": ids[edge["source"]], "target": ids[edge["target"]], "weight": edge["nats"]}
            for edge in graph.edges.to_dict("records")
        ],
    }


def _cumulative(graph: AttributionGraph) -> list[float]:
    """Of each node the share of all influence that it and those above it have; 0 of the answer."""
    nodes: Any = graph.nodes
    inner: np.ndarray = (nodes["kind"] != "answer").to_numpy()
    own: np.ndarray = nodes["influence"].to_numpy() * inner
    order = np.argsort(-own, kind="stable")
    found = np.zeros(len(own))
    found[order] = np.cumsum(own[order]) * graph.nodes_kept / own.sum()
    return (found * inner).tolist()


def _named(graph: AttributionGraph, row: dict[str, Any], groups: list[str]) -> dict[str, Any]:
    """A node without its numbers."""
    kind, layer = row["kind"], row["layer"]
    at = groups.index(row["group"]) if row["group"] else 0
    stands = "E" if layer < 0 else str(layer)
    heads = graph.heads
    told = {"clerp": row["name"], "token_prob": 0.0, "is_target_logit": False}
    feature, type_ = at, "embedding"
    if kind == "answer":
        feature, type_, stands = graph.answer_id, "logit", str(graph.graph.route.n_layers + 1)
        clerp = f'Output "{graph.answer}" (p={graph.probability:.3f})'
        told = {"clerp": clerp, "token_prob": graph.probability, "is_target_logit": True}
    elif kind in ("mlp", "bias"):
        feature, type_ = -1, ERROR
    elif kind == "head":
        feature, type_ = row["head"], FEATURE
    elif kind == "cross_head":
        feature, type_ = heads + row["head"], FEATURE
    elif kind == "neuron":
        feature, type_ = 2 * heads + row["neuron"], FEATURE
    return {
        "node_id": f"{stands}_{feature}_{at}",
        "feature": feature,
        "layer": stands,
        "ctx_idx": at,
        "feature_type": type_,
        "jsNodeId": f"{stands}_{feature}-{at}",
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        **told,
    }

"""Scores of nodes by gradients: attribution patching, and AtP* with its two mends.

AtP* (Kramár et al. 2024, arXiv 2403.00745) mends two blind spots of attribution patching. A softmax
that is saturated has no slope: where a head's queries or keys are exchanged, its attention is
computed anew, and only what follows is taken as linear. And effects that cancel over several paths
leave no gradient: the gradient is taken once for each layer that it may not pass (GradDrop), and
the sizes of these scores are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from palscope._circuits.compared import compared
from palscope._circuits.exact import moved_outputs
from palscope._circuits.gradients import attributed
from palscope._circuits.graph import Block, Graph
from palscope._circuits.local import Heads, heads_of
from palscope._circuits.observed import Observed, observe, output_hook
from palscope._circuits.writes import Writes, places
from palscope._hooks import HookedAudioModel
from palscope.measures._metrics import Answers
from palscope.measures._patching import Direction


def atp_star(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    graph: Graph,
    *,
    answers: Answers,
    direction: Direction = "noising",
) -> pd.DataFrame:
    """What exchanging each node by itself does to the answer, estimated.

    Two forward passes and a backward one, and for GradDrop another forward and backward pass a
    layer.

    Args:
        clean: as in `exact_effects`, like all others.
        corrupt: likewise.
        graph: likewise.
        answers: likewise.
        direction: likewise.

    Returns:
        A row a node's `output`, and a row a head's `q`, `k` and `v` at the group where these are
        made: `name, node, slot, group, atp, fixed, atp_star`. `atp` is attribution patching,
        `fixed` has attention computed anew (of outputs and values it is `atp`), both in nats and
        signed; `atp_star` is the mean size over dropped layers.
    """
    runs = compared(model, clean, corrupt, graph, answers, direction, gradients=True)
    there, writes = runs.there, runs.change
    rows, plain, fixed = _scores(model, graph, runs.here, there, writes)
    sizes: list[Float[np.ndarray, "rows"]] = []
    for layer in range(graph.route.n_layers):
        run = observe(model, runs.inputs, graph, answers, gradients=True, dropped=layer)
        found = np.abs(_scores(model, graph, run, there, writes)[2])
        found[[graph.nodes[node].layer == layer for node, _, _ in rows]] = np.nan
        sizes.append(found)
    named = [
        {"name": _name(graph, *row), "node": row[0], "slot": row[1], "group": row[2]}
        for row in rows
    ]
    scores = {"atp": plain, "fixed": fixed, "atp_star": np.nanmean(sizes, 0)}
    return pd.DataFrame(named).assign(**scores)


Row = tuple[int, str, int]
"""A node, what of it, and the group where that stands."""


def _scores(
    model: HookedAudioModel, graph: Graph, here: Observed, there: Observed, writes: Writes
) -> tuple[list[Row], Float[np.ndarray, "rows"], Float[np.ndarray, "rows"]]:
    """Rows, and their scores without and with attention computed anew."""
    edges = attributed(model, graph, here, writes)
    outputs = np.bincount(graph.sources, edges, len(graph.nodes))
    plain = {(node, "output", each.group): outputs[node] for node, each in enumerate(graph.nodes)}
    del plain[len(graph.nodes) - 1, "output", graph.nodes[-1].group]  # the answer
    fixed = dict(plain)
    heads: Heads | None = None
    for block in graph.blocks:
        if block.slot not in ("q", "k", "v"):
            continue
        if heads is None or heads.number != block.stage:
            heads = heads_of(model, graph, block.stage, here)
        assert heads is not None
        inputs = edges[block.edges].reshape(len(block.sources), -1).sum(0)
        anew = inputs if block.slot == "v" else _anew(model, graph, block, here, there, heads)
        for node, old, new in zip(block.targets, inputs, anew, strict=True):
            row = node, block.slot, block.key_group
            plain[row], fixed[row] = float(old), float(new)
    return list(plain), np.array([*plain.values()]), np.array([*fixed.values()])


@torch.no_grad()
def _anew(
    model: HookedAudioModel,
    graph: Graph,
    block: Block,
    here: Observed,
    there: Observed,
    heads: Heads,
) -> Float[np.ndarray, "targets"]:
    """Heads' outputs with queries or keys of the other run, times the gradient of outputs."""
    other = heads_of(model, graph, block.stage, there)
    assert other is not None
    columns = graph.groups[block.key_group].columns
    if block.slot == "q":
        at = places(heads.attention.running, columns)
        change = other.state[at] - heads.state[at]
    else:
        change = other.entering(columns)[0] - heads.entering(columns)[0]
    moved = moved_outputs(model, graph, block, here, heads, change[None])[0]
    at = places(heads.attention.running, graph.groups[block.group].columns)
    gradient = here.gradients[output_hook(graph.stages[block.stage])][at]
    return torch.einsum("qhk,qhk->h", moved.to(gradient), gradient).double().cpu().numpy()


def _name(graph: Graph, node: int, slot: str, group: int) -> str:
    if slot == "output":
        return graph.name(node)
    return f"{slot} of {graph.name(node)}, from {graph.groups[group].name}"

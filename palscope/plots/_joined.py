"""A circuit with so few nodes and edges that they can be seen: alike ones are joined."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

MOST = 200
"""Lines that can be told apart."""
SLOTS = ("sound", "q", "k", "v", "mlp", "answer")
SEVERAL = "several"
"""The kind of a node that heads and networks are joined to."""
HEADS = ("head", "cross_head")
MANY = (*HEADS, "feature")
"""Kinds of which there are many at the same positions of a layer."""

Row = dict[str, Any]
Key = Callable[[Row], tuple[Hashable, int, int]]
"""Of a node what makes it one with others, and the layers of its row."""


@dataclass(frozen=True, eq=False)
class Joined:
    """A circuit that can be drawn.

    Attributes:
        nodes: a row a node that is drawn, with the columns of a circuit's; beside them `label`,
            `members` (the circuit's nodes), `inside` (the sum of scores of edges within it), and
            `last_layer`: from `layer` to it reaches its row.
        edges: `source, target` (places in `nodes`), `score` (the sum), `edges` (how many), and the
            sum of each slot, NaN where there is none; the strongest last, so that they are on top.
        said: what was joined, in words.
    """

    nodes: list[Row]
    edges: list[Row]
    said: tuple[str, ...]


def joined(nodes: pd.DataFrame, edges: pd.DataFrame, most: int = MOST) -> Joined:
    """As much is joined as leaves `most` edges at most, or half as many; scores are summed.

    Edges between the same two nodes (into queries, keys and values) are always one. Where that is
    not enough, so are heads of a layer at one group of positions; then they and the network; then
    neighbouring layers. Joined nodes stand below each other, so half as many lines are told apart.
    Of what is still too much the strongest edges are left.
    """
    made, said = _with(nodes, edges, _itself), ""
    for key, words in _levels(nodes):
        if len(made.edges) <= (most // 2 if said else most):
            break
        made, said = _with(nodes, edges, key), words
    told = [said] if said else []
    if not said and any(edge["edges"] > 1 for edge in made.edges):
        told.append("Edges into queries, keys and values between the same two nodes are one line.")
    if any(node["inside"] for node in made.nodes):
        told.append("What passes between joined nodes is said at them.")
    if len(made.edges) > most:
        told.append(f"Of {len(made.edges)} lines the {most} strongest are drawn.")
    return Joined(made.nodes, made.edges[-most:], tuple(told))


def _itself(node: Row) -> tuple[Hashable, int, int]:
    return node["node"], node["layer"], node["layer"]


def _levels(nodes: pd.DataFrame) -> list[tuple[Key, str]]:
    """What makes nodes one, coarser from step to step, and how that is said."""
    every: Any = nodes
    what = "Heads of a layer"
    if (every["kind"] == "feature").any():
        what += ", and features of a dictionary,"
    found: list[tuple[Key, str]] = [
        (_alike, f"{what} at the same positions are one node."),
        (partial(_layers, step=1), "Heads and network of a layer at the same positions are one."),
    ]
    step, last = 2, int(every["layer"].max())
    while step < 2 * (last + 1):
        words = f"{step} neighbouring layers at the same positions are one node."
        found.append((partial(_layers, step=step, last=last), words))
        step *= 2
    return found


def _alike(node: Row) -> tuple[Hashable, int, int]:
    if node["kind"] not in MANY:
        return _itself(node)
    layer = node["layer"]
    return (node["kind"], layer, node["group"]), layer, layer


def _layers(node: dict[str, Any], step: int, last: int | None = None) -> tuple[Hashable, int, int]:
    if node["layer"] < 0:
        return _alike(node)
    low = node["layer"] - node["layer"] % step
    high = low + step - 1 if last is None else min(low + step - 1, last)
    inner = node["kind"] in (*MANY, "mlp")
    return (inner or node["kind"], low, node["group"]), low, high


def _with(nodes: pd.DataFrame, edges: pd.DataFrame, key: Key) -> Joined:
    """Nodes of one key are one."""
    rows: list[Row] = nodes.to_dict("records")
    parts: dict[tuple[Hashable, int, int], list[Row]] = {}
    for row in rows:
        parts.setdefault(key(row), []).append(row)
    place = {row["node"]: at for at, mine in enumerate(parts.values()) for row in mine}
    every: Any = edges
    ends = {end: every[end].map(place).astype(int) for end in ("source", "target")}
    lines: Any = every.assign(**ends)
    within: Any = lines["source"] == lines["target"]
    inside: Any = lines[within].groupby("source")["score"].sum()
    found = [
        {**_one_of(mine), "layer": low, "last_layer": high, "inside": inside.get(at, 0.0)}
        for at, ((_, low, high), mine) in enumerate(parts.items())
    ]
    return Joined(found, _summed(lines[~within]), ())


def _summed(lines: Any) -> list[Row]:
    """A row each two nodes, the strongest last."""
    ends = ["source", "target"]
    by = lines.groupby(ends)["score"]
    found = by.agg(score="sum", edges="size")
    slots = lines.groupby([*ends, "slot"])["score"].sum().unstack().reindex(columns=[*SLOTS])
    found = found.join(slots).reset_index()
    return found.sort_values("score", key=np.abs, kind="stable").to_dict("records")


def _one_of(rows: list[Row]) -> Row:
    """Nodes as one."""
    first, layers = rows[0], [row["layer"] for row in rows]
    own = {"members": tuple(row["node"] for row in rows)}
    if len(rows) == 1:
        numbered = {"feature": first["feature"]} | dict.fromkeys(HEADS, first["head"])
        return {**first, **own, "label": str(numbered.get(first["kind"], ""))}
    kinds = {str(row["kind"]) for row in rows}
    kind = first["kind"] if len(kinds) == 1 else SEVERAL
    low, high = min(layers), max(layers)
    where = f"L{low}" if low == high else f"L{low} to L{high}"
    if low < 0:
        where = ""
    if kind == "sound":
        told, label = first["group"], ""
    else:
        told = f"{_parts(rows, low == high)} at {first['group']}"
        label = f"×{len(rows)}"
    named = {"name": f"{where} {told}".lstrip(), "kind": kind, "head": -1, "feature": -1}
    return {**first, **own, **named, "label": label}


def _parts(rows: list[Row], one_layer: bool) -> str:
    """Heads, features and networks in words."""
    heads = [row["head"] for row in rows if row["kind"] in HEADS]
    features = [row["feature"] for row in rows if row["kind"] == "feature"]
    networks = len(rows) - len(heads) - len(features)
    crossed = rows[0]["kind"] == "cross_head"
    told = [
        _numbered("cross-attention heads" if crossed else "heads", heads, one_layer),
        _numbered("features", features, one_layer),
        "" if not networks else "mlp" if networks == 1 else f"{networks} mlps",
    ]
    return " and ".join(filter(None, told))


def _numbered(what: str, numbers: list[int], one_layer: bool) -> str:
    if one_layer and 0 < len(numbers) <= 8:
        return f"{what} {', '.join(map(str, numbers))}"
    return f"{len(numbers)} {what}" if numbers else ""

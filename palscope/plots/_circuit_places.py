"""Where the nodes of a circuit stand: seconds and text along, layers upwards.

Sound stands at its seconds, streams beside each other within a stretch; groups of text stand to the
right, each as wide as its fullest row. Only layers with a node have a row. Within one stand, from
the bottom: sound that this layer alone reads, heads, cross-attention, the network, which has a
place of its own on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from palscope.plots._joined import SEVERAL, Row

WITHIN = {
    "sound": -0.35, "head": 0.0, "cross_head": 0.2, "mlp": 0.4, "feature": 0.4, SEVERAL: 0.2,
}  # fmt: skip
"""Where in a layer's row."""
FEWEST, MOST = 10, 40
"""So many times as wide as a node is the sound, at least and at most."""
LAST, TEXT = 6, 3
"""Likewise the last token, and other text, at least."""
ROOM = 0.8
"""Of a stretch's width that its nodes take."""

Ticks = tuple[tuple[float, str], ...]
Lane = tuple[float, float]


@dataclass(frozen=True)
class Places:
    """Where nodes stand.

    Attributes:
        x: seconds; beyond the sound what they would be.
        y: rows; 0 is the lowest layer that has a node.
        step: how far neighbours in a full row of text are apart.
        x_ticks: seconds, and names of text.
        y_ticks: layers, and what enters.
        edges: x of the ends of stretches of sound.
        ends: of x.
    """

    x: Float[np.ndarray, " nodes"]
    y: Float[np.ndarray, " nodes"]
    step: float
    x_ticks: Ticks
    y_ticks: Ticks
    edges: tuple[float, ...]
    ends: Lane


def places(rows: Sequence[Row], groups: pd.DataFrame) -> Places:
    """Of `Joined.nodes`, at a circuit's groups of positions."""
    y, y_ticks = _rows(rows)
    lanes, streams = _of_sound(groups)
    seconds = max((high for _, high in lanes.values()), default=1.0)
    here = list(dict.fromkeys(row["group"] for row in rows))
    needs = [_fullest(rows, y, name) / (high - low)
             for name, (low, high) in lanes.items() if name in here]  # fmt: skip
    step = seconds / min(MOST, max(FEWEST, seconds * max(needs, default=0)))
    edge = seconds + step
    last = next(row["group"] for row in rows if row["kind"] == "answer")
    names: list[str] = [name for name in groups["group"] if name in here and name not in lanes]
    text: dict[str, Lane] = {}
    for name in names:
        wide = step * max(LAST if name == last else TEXT, _fullest(rows, y, name))
        text[name] = edge, edge + wide
        edge += wide + step / 2
    x = _spread(rows, lanes | text, y)
    named = [((low + high) / 2, name.replace(" ", "\n")) for name, (low, high) in text.items()]
    x_ticks = (*((each, f"{each:g}") for each in _seconds(seconds)), *named)
    return Places(
        x, y, step, x_ticks, y_ticks, _ends(groups, streams), (-step / 2, edge + step / 2)
    )


def _rows(rows: Sequence[Row]) -> tuple[np.ndarray, Ticks]:
    """Each node's y, and the names of rows."""
    layers = sorted({(row["layer"], row["last_layer"]) for row in rows if row["layer"] >= 0})
    at = {layer: float(row) for row, layer in enumerate(layers)}
    low = [row for row in rows if row["stream"] and row["layer"] < 0]
    low.sort(key=lambda row: row["kind"] != "sound")  # what the encoder has is below
    enters = {name: -1.0 - at for at, name in enumerate(dict.fromkeys(r["stream"] for r in low))}
    top = float(len(layers))

    def height(row: Row) -> float:
        if row["kind"] == "answer":
            return top
        if row["layer"] < 0:
            return enters.get(row["stream"], -1.0)
        return at[row["layer"], row["last_layer"]] + WITHIN[row["kind"]]

    named = [
        (place, f"{low}" if low == high else f"{low}–{high}") for (low, high), place in at.items()
    ]
    below = [(place, stream) for stream, place in reversed(enters.items())]
    if not below and any(row["kind"] == "text" for row in rows):
        below = [(-1.0, "text")]
    return np.array([height(row) for row in rows]), (*below, *named, (top, "answer"))


def _of_sound(groups: pd.DataFrame) -> tuple[dict[str, Lane], list[str]]:
    """Between which seconds nodes of each stretch of sound stand, and the streams."""
    every: Any = groups
    timed = every[every["start_s"].notna()]
    # What stands in the encoder has rows of its own.
    streams: list[str] = list(dict.fromkeys(timed["stream"][~timed["in_encoder"]]))
    lanes: dict[str, Lane] = {}
    for row in timed.to_dict("records"):
        if row["in_encoder"]:
            lanes[row["group"]] = row["start_s"], row["end_s"]
            continue
        wide = (row["end_s"] - row["start_s"]) / len(streams)
        low = row["start_s"] + streams.index(row["stream"]) * wide
        lanes[row["group"]] = low, low + wide
    return lanes, streams


def _ends(groups: pd.DataFrame, streams: Sequence[str]) -> tuple[float, ...]:
    """Where stretches end: those of the first stream."""
    rows: Any = groups
    mine = rows[rows["stream"].isin(streams[:1]) & rows["end_s"].notna()]
    ends: list[float] = mine["end_s"].tolist()
    return tuple(sorted({0.0, *(round(each, 4) for each in ends)})) if ends else ()


def _fullest(rows: Sequence[Row], y: np.ndarray, group: str) -> int:
    """How many nodes the fullest row of a group has, one more where its networks stand beside."""
    mine = [row for row in rows if row["group"] == group]
    heights = [each for row, each in zip(rows, y.tolist(), strict=True) if row["group"] == group]
    return max(map(heights.count, heights), default=0) + _beside(mine)


def _beside(rows: Sequence[Row]) -> bool:
    """Whether networks of a group have a place beside its heads."""
    kinds = {row["kind"] for row in rows}
    return "mlp" in kinds and bool(kinds & {"head", "cross_head"})


def _spread(rows: Sequence[Row], lanes: dict[str, Lane], y: np.ndarray) -> np.ndarray:
    """Nodes of one group and height beside each other, networks to the right of them."""
    found, rest = np.zeros(len(rows)), dict[Any, list[int]]()
    parts = {name: [row for row in rows if row["group"] == name] for name in lanes}
    full = {name: _fullest(rows, y, name) for name in lanes}
    for node, (row, height) in enumerate(zip(rows, y.tolist(), strict=True)):
        (low, high), beside = lanes[row["group"]], _beside(parts[row["group"]])
        place = ROOM * (high - low) / max(1, full[row["group"]])
        if row["kind"] == "mlp" and beside:
            found[node] = low + (0.5 + ROOM / 2) * (high - low) - place / 2
        else:
            rest.setdefault((row["group"], height, beside * place), []).append(node)
    for (group, _, taken), nodes in rest.items():
        low, high = lanes[group]
        wide = ROOM * (high - low) - taken
        middle = (low + high - taken) / 2
        for at, node in enumerate(nodes):
            found[node] = middle + wide * ((at + 0.5) / len(nodes) - 0.5)
    return found


def _seconds(end: float) -> list[float]:
    """Round seconds up to an end, six at most."""
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if end / step < 6)
    return [round(step * each, 6) for each in range(int(end / step) + 1)]

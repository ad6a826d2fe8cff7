"""The figure of one circuit, from seconds of sound to the answer, with its faithfulness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from palscope.errors import PalscopeError
from palscope.plots._circuit_places import Places, places
from palscope.plots._figure import Caption, Figure, Mark, Panel
from palscope.plots._grammar import Axis, Line, Rule
from palscope.plots._joined import MOST, SEVERAL, SLOTS, Joined, Row, joined
from palscope.plots._looks import REFERENCE, Look, looks
from palscope.plots._network import Edges, Nodes

WIDEST, THINNEST = 6.0, 1.0
"""Pixels of the strongest edge, to which others are in proportion, to half a pixel; and of any."""
HELPS, HINDERS = "helps the answer", "works against it"
_SIGNS = {HELPS: Look("green", marker=""), HINDERS: Look("wine", marker="", dash="dash")}
_KINDS = {
    "text": ("text", Look("text", "cross")),
    "head": ("head", Look("ink", "triangle-up")),
    "cross_head": ("cross-attention head", Look("ink", "triangle-down")),
    "mlp": ("feed-forward network", Look("olive", "square")),
    "feature": ("feature", Look("pink", "x")),
    "encoder": ("what features leave", Look("grey", "square")),
    SEVERAL: ("heads and networks", Look("ink", "diamond")),
    "answer": ("answer", Look("orange", "star")),
}
_HELD, _MEAN, _OWN = "held-out pair", "mean of held-out pairs", "pair that chose it"


class Parts(Protocol):
    """What `palscope.circuits.circuit_parts` gives."""

    @property
    def nodes(self) -> pd.DataFrame: ...
    @property
    def edges(self) -> pd.DataFrame: ...
    @property
    def groups(self) -> pd.DataFrame: ...
    @property
    def size(self) -> int: ...


def circuit(parts: Parts, faithful: pd.DataFrame, *, caption: Caption, most: int = MOST) -> Figure:
    """A circuit, and beside it how much of the answer is left of circuits by size.

    Sound stands at its seconds, text to the right of it, layers upwards, the answer on top. An edge
    is as wide as its score is large. Edges between the same two nodes are one line, with the sum of
    their scores. Where there are more than `most` lines, so are heads of a layer at one group of
    positions, then they and their network, then neighbouring layers; the figure says which.

    Args:
        parts: of `palscope.circuits.circuit_parts`. A negative score (of noising) helps the answer.
        faithful: a row a pair and size of circuit: `pair`, `edges` (its size), `faithful`, and
            `held_out`: whether the pair had no part in choosing the circuit.
        caption: what the figure says of its numbers.
        most: lines that are drawn.

    Raises:
        PalscopeError: `faithful` has no row of the circuit's size.
    """
    size = parts.size
    every: Any = faithful
    here = every[every["edges"] == size]
    if here.empty:
        raise PalscopeError(
            f"a circuit of {size} edges is drawn beside its faithfulness, and the table has sizes "
            f"{sorted(set(every['edges']))}: run it on a pair that did not choose it."
        )
    shown = joined(parts.nodes, parts.edges, most)
    at = places(shown.nodes, parts.groups)
    along = Axis("time (s), text to the right", limits=at.ends, ticks=at.x_ticks)
    low, high = at.y_ticks[0][0], at.y_ticks[-1][0]
    upwards = Axis("layer", limits=(min(low, 0) - 0.6, high + 0.6), ticks=at.y_ticks)
    tall = float(np.clip(0.42 * (high - low + 2), 2.6, 6.4)) / 2.6
    marks: list[Mark] = [Rule(edge, along="y", look=REFERENCE) for edge in at.edges]
    marks += [*_edge_marks(shown, at), *_node_marks(shown, at)]
    drawn = Panel(marks, along, upwards, height=tall)
    said = [_in_numbers(here, size, len(parts.edges)), *shown.said]
    curve = _faithful_panel(faithful, size, tall)
    return Figure([drawn, curve], caption, _data(shown, faithful), " ".join(said))


# -- the circuit ----------------------------------------------------------------------------------


def _edge_marks(shown: Joined, at: Places) -> list[Mark]:
    ends = np.stack([at.x, at.y], 1)
    most = max((abs(edge["score"]) for edge in shown.edges), default=0.0) or 1.0
    marks: list[Mark] = []
    for name, look in _SIGNS.items():
        mine = [edge for edge in shown.edges if (edge["score"] > 0) == (name == HINDERS)]
        if not mine:
            continue
        start, end = (ends[[edge[which] for edge in mine]] for which in ("source", "target"))
        bend = _bend(start, end, at.step) * (-1 if name == HINDERS else 1)
        share = np.array([abs(edge["score"]) / most for edge in mine])
        width = np.round(2 * WIDEST * share) / 2
        hover = tuple(_edge_said(shown.nodes, edge) for edge in mine)
        marks.append(Edges(start, end, bend, np.maximum(width, THINNEST), hover, name, look))
    return marks


def _bend(start: np.ndarray, end: np.ndarray, step: float) -> np.ndarray:
    """Edges to what stands right above pass beside what is between."""
    over, up = (np.abs(end[:, axis] - start[:, axis]) for axis in range(2))
    return np.where(over < step, step * np.clip(up - 0.6, 0, 2.5), 0.0)


def _edge_said(nodes: Sequence[Row], row: Row) -> str:
    ends = [f"{nodes[row[end]]['name']}" for end in ("source", "target")]
    slots = ", ".join(f"{slot} {row[slot]:+.3g}" for slot in SLOTS if row[slot] == row[slot])
    count = f" in {row['edges']} edges" if row["edges"] > 1 else ""
    return f"{' → '.join(ends)}\n{row['score']:+.3g} nats when exchanged{count} ({slots})"


def _node_marks(shown: Joined, at: Places) -> list[Mark]:
    rows = shown.nodes
    streams: dict[str, Look] = looks([row["stream"] for row in rows if row["kind"] == "sound"])
    kinds = {each: (f"sound, {each}", look) for each, look in streams.items()} | _KINDS
    marks: list[Mark] = []
    for kind, (name, look) in kinds.items():
        mine = [
            place
            for place, row in enumerate(rows)
            if kind == (row["stream"] if row["kind"] == "sound" else row["kind"])
        ]
        if mine:
            hover = tuple(_node_said(shown, place) for place in mine)
            labels, ids = (tuple(str(rows[each][of]) for each in mine) for of in ("label", "name"))
            marks.append(Nodes(at.x[mine], at.y[mine], hover, labels, name, look, ids))
    return marks


def _node_said(shown: Joined, place: int) -> str:
    row = shown.nodes[place]
    parts = [str(row["name"])]
    for end, words in (("target", "comes in"), ("source", "goes out")):
        mine = [edge for edge in shown.edges if edge[end] == place]
        if mine:
            score, count = (sum(edge[what] for edge in mine) for what in ("score", "edges"))
            several = "s" * (count > 1)
            parts.append(f"{score:+.3g} nats {words} by {count} edge{several}")
    if row["inside"]:
        parts.append(f"{row['inside']:+.3g} nats between its parts")
    return "\n".join(parts)


# -- its faithfulness -----------------------------------------------------------------------------


def _faithful_panel(faithful: pd.DataFrame, size: int, tall: float) -> Panel:
    table: Any = faithful
    table = table.assign(place=np.log10(table["edges"])).sort_values("place")
    marks: list[Mark] = [Rule(1.0), Rule(0.0)]
    held = table[table["held_out"]]
    several = held["pair"].nunique() > 1
    for chose, name, look in (
        (True, _OWN, Look("sky", "x", "dot")),
        (False, _HELD, Look("grey", light=several)),
    ):
        for _, rows in table[table["held_out"] != chose].groupby("pair", sort=False):
            said = tuple(f"{pair}, {count} edges" for pair, count in rows[["pair", "edges"]].values)
            marks.append(Line(rows["place"], rows["faithful"], 1, name, look, hover=said))
    if several:
        means = held.groupby("place")["faithful"].agg(["mean", "size"]).reset_index()
        said = tuple(f"mean, {10**place:.0f} edges" for place in means["place"])
        look = Look("ink", "square")
        marks.append(Line(means["place"], means["mean"], means["size"], _MEAN, look, hover=said))
    chosen = Look("orange", marker="", dash="dash")
    marks.append(Rule(float(np.log10(size)), "the circuit drawn", along="y", look=chosen))
    x = Axis("edges, logarithmic", ticks=_apart(table["edges"].unique().tolist()))
    return Panel(marks, x, Axis("faithfulness"), column=1, height=tall)


def _apart(counts: Sequence[int], least: float = 0.28) -> tuple[tuple[float, str], ...]:
    """Marks of sizes, those left out that would stand on others."""
    found: list[tuple[float, str]] = []
    for count in counts:
        place = float(np.log10(count))
        if not found or place - found[-1][0] >= least:
            found.append((place, f"{count:,}"))
    return tuple(found)


def _in_numbers(here: Any, size: int, live: int) -> str:
    """How much of the answer is left of the circuit, and on what."""
    count = f"{size:,} edges, {live:,} of them on a way from sound to the answer"
    held: list[float] = here.loc[here["held_out"], "faithful"].tolist()
    if not held:
        own = here["faithful"].mean()
        return f"{count}; nothing is held out: faithfulness {own:.2f} on what chose it."
    mean = f"{np.mean(held):.2f}"
    if len(held) == 1:
        return f"{count}; faithfulness {mean} on a pair that had no part in choosing it."
    ends = f"({min(held):.2f} to {max(held):.2f})"
    return f"{count}; faithfulness {mean} {ends} on {len(held)} pairs that had no part in it."


def _data(shown: Joined, faithful: pd.DataFrame) -> pd.DataFrame:
    """The lines, by name, and the faithfulness."""
    names = [node["name"] for node in shown.nodes]
    lines = [
        {"drawn": "line", **edge, **{end: names[edge[end]] for end in ("source", "target")}}
        for edge in reversed(shown.edges)
    ]
    rows: list[Row] = faithful.assign(drawn="faithfulness").to_dict("records")
    return pd.DataFrame([*lines, *rows])

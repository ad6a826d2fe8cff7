"""Figures of circuits: how much of the answer is left of ever smaller ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line
from palscope.plots._looks import looks

COLUMNS = 3
"""Panels in a row."""

ORDERS = {
    "absolute": "edges of the largest effect",
    "signed": "edges that help the answer most",
}


def faithfulness_by_size(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Faithfulness of circuits by their share of all edges, a line a method, a panel an order.

    Args:
        table: a `mean_band` by `method`, `order` and `share`.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    shares: list[float] = sorted(whole["share"].unique())
    ticks = tuple((float(np.log10(share)), f"{100 * share:g}") for share in shares)
    x = Axis("edges in the circuit", "% of all, logarithmic", ticks=ticks)
    return Figure(_panels(table, "order", "share", x), caption, table)


def faithfulness_by_edges(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Faithfulness of circuits by their number of edges, a line a method, a panel a task.

    Args:
        table: a `mean_band` by `kind`, `method` and `edges`.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    sizes: list[int] = sorted(whole["edges"].unique())
    ticks = tuple((float(np.log10(size)), f"{size:,}") for size in sizes)
    x = Axis("edges in the circuit", "logarithmic", ticks=ticks)
    return Figure(_panels(table, "kind", "edges", x), caption, table)


CARRIES = {"alone": "these features alone", "without": "all but these"}


def carried_by_features(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """How much of the answer few features carry, and how much is left without them.

    Args:
        table: a `mean_band` by `hook_point`, `chosen_by`, `carries` ("alone", "without"; others are
            not drawn) and `features`.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    whole = whole[whole["carries"].isin(CARRIES)]
    whole = whole.assign(place=np.log10(whole["features"]))
    names = [f"{CARRIES[way]}, chosen by {who}"
             for who in whole["chosen_by"].unique() for way in CARRIES]  # fmt: skip
    named = looks(names)
    panels: list[Panel] = []
    for number, (place, mine) in enumerate(whole.groupby("hook_point", sort=False)):
        sizes: list[int] = sorted(mine["features"].unique())
        ticks = tuple((float(np.log10(size)), f"{size:,}") for size in sizes)
        marks = [
            Line.of(rows.sort_values("place"), "place", name=name, look=named[name])
            for (who, way), rows in mine.groupby(["chosen_by", "carries"], sort=False)
            for name in [f"{CARRIES[way]}, chosen by {who}"]
        ]
        x = Axis("features that carry the clean clip", "logarithmic", ticks=ticks)
        y, row, column = Axis("share of the answer"), number // COLUMNS, number % COLUMNS
        panels.append(Panel(marks, x, y, str(place), row=row, column=column))
    return Figure(panels, caption, whole)


def _panels(table: pd.DataFrame, panel: str, size: str, x: Axis) -> list[Panel]:
    """A panel each value of one column; its lines go along the logarithm of another."""
    whole: Any = table
    whole = whole.assign(place=np.log10(whole[size]))
    named = looks(whole["method"])
    return [
        Panel(
            [
                Line.of(rows.sort_values("place"), "place", name=str(method), look=named[method])
                for method, rows in mine.groupby("method", sort=False)
            ],
            x,
            Axis("faithfulness"),
            ORDERS.get(str(name), str(name)),
            row=number // COLUMNS,
            column=number % COLUMNS,
        )
        for number, (name, mine) in enumerate(whole.groupby(panel, sort=False))
    ]

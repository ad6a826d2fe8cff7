"""Figures of circuits: how much of the answer is left of ever smaller ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line
from palscope.plots._looks import looks

COLUMNS = 3
"""Panels of tasks in a row."""

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
    whole = whole.assign(place=np.log10(whole["share"]))
    named = looks(whole["method"])
    shares = sorted(whole["share"].unique())
    ticks = tuple((float(np.log10(share)), f"{100 * share:g}") for share in shares)
    x = Axis("edges in the circuit", "% of all, logarithmic", ticks=ticks)
    y = Axis("faithfulness")
    panels = [
        Panel(
            [
                Line.of(rows.sort_values("place"), "place", name=str(method), look=named[method])
                for method, rows in mine.groupby("method", sort=False)
            ],
            x,
            y,
            ORDERS[str(order)],
            column=column,
        )
        for column, (order, mine) in enumerate(whole.groupby("order", sort=False))
    ]
    return Figure(panels, caption, table)


def faithfulness_by_edges(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Faithfulness of circuits by their number of edges, a line a method, a panel a task.

    Args:
        table: a `mean_band` by `kind`, `method` and `edges`.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    whole = whole.assign(place=np.log10(whole["edges"]))
    named = looks(whole["method"])
    sizes = sorted(whole["edges"].unique())
    ticks = tuple((float(np.log10(size)), f"{size:,}") for size in sizes)
    x, y = Axis("edges in the circuit", "logarithmic", ticks=ticks), Axis("faithfulness")
    panels = [
        Panel(
            [
                Line.of(rows.sort_values("place"), "place", name=str(method), look=named[method])
                for method, rows in mine.groupby("method", sort=False)
            ],
            x,
            y,
            str(kind),
            row=number // COLUMNS,
            column=number % COLUMNS,
        )
        for number, (kind, mine) in enumerate(whole.groupby("kind", sort=False))
    ]
    return Figure(panels, caption, table)

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

"""Figures that set models, domains or runs side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from palscope.plots._attention import layers_of, pathway_lines
from palscope.plots._axes import LAYER, SHARE
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line, Points, Rule
from palscope.plots._looks import Look, looks


def mass_by_depth(bands: pd.DataFrame, *, caption: Caption) -> Figure:
    """Share of attention to each stream by layer: a row of panels a model, a column a domain.

    Args:
        bands: `model, domain, pathway, layer, n, mean, low, high`: a `mean_band` of `by_pathway` by
            layer and pathway for each model and domain. Text, which has the rest, is not drawn.
        caption: what the figure says of its numbers.
    """
    table: Any = bands
    table = table.assign(pathway=table["pathway"].astype(str)).query("pathway != 'text'")
    models, domains = (list(table[column].unique()) for column in ("model", "domain"))
    panels = [
        Panel(
            pathway_lines(rows, "layer", over=layers_of(rows)),
            LAYER,
            SHARE,
            ", ".join(filter(None, (str(model), str(domain)))),
            models.index(model),
            domains.index(domain),
        )
        for (model, domain), rows in table.groupby(["model", "domain"], sort=False)
    ]
    return Figure(panels, caption, bands)


def differences(summary: pd.DataFrame, *, caption: Caption) -> Figure:
    """Mean difference between two runs, B less A, along each column that names a row.

    Args:
        summary: rows of one `value` of `palscope._sweeps.compare.difference_summary`; those by
            "all" are not drawn.
        caption: what the figure says of its numbers.
    """
    table: Any = summary
    table = table[table["by"] != "all"]
    named = looks(table["group"].astype(str))
    y = Axis(f"{table['value'].iloc[0]}, B less A")
    panels = [
        _along(str(by), rows, y, column, named)
        for column, (by, rows) in enumerate(table.groupby("by", sort=False))
    ]
    return Figure(panels, caption, summary)


def _along(by: str, rows: Any, y: Axis, column: int, named: dict[str, Look]) -> Panel:
    """A panel: lines where the levels are numbers, else points."""
    numbers = np.asarray(pd.to_numeric(rows["at"], errors="coerce"), dtype=float)
    numeric = not np.isnan(numbers).any()
    if numeric:
        rows = rows.assign(at=numbers).sort_values("at")
        x = Axis(by, integer=bool(np.all(numbers % 1 == 0)))
    else:
        x = Axis(by, categories=tuple(rows["at"].astype(str).unique()))
    kind = Line if numeric else Points
    marks = [
        kind.of(of, "at", "difference", name=str(group) or "mean", look=named[group])
        for group, of in rows.groupby("group", sort=False)
    ]
    return Panel([Rule(0), *marks], x, y, column=column)

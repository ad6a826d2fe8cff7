"""Systems of an experiment side by side: scores by set of questions, and scores against cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from palscope.plots import _spread as spread
from palscope.plots import _style as style

Cost = Literal["peak_ratio", "cache_ratio", "prefill_ratio", "step_ratio", "step_peak_ratio"]

COST_LABELS: dict[Cost, str] = {
    "peak_ratio": "peak memory of prefill, relative",
    "cache_ratio": "size of the cache, relative",
    "prefill_ratio": "prefill time, relative",
    "step_ratio": "time of a training step, relative",
    "step_peak_ratio": "peak memory of a training step, relative",
}
_COLOUR, _SEEDS = "#0072B2", "#7F7F7F"
SCORE = "score"


def scores_by_system(table: pd.DataFrame) -> go.Figure:
    """Scores with their intervals, a row a system, a panel a set; the grey marks are its seeds.

    The intervals are over clips, for the seeds that were trained: another seed may lie outside.

    Args:
        table: from `palscope.evaluation._reproduce.summary`.
    """
    sets, variants = _sets(table), _variants(table)
    figure: Any = make_subplots(
        rows=1, cols=len(sets), shared_yaxes=True, subplot_titles=_titles(table, sets)
    )
    for column, name in enumerate(sets, start=1):
        rows: Any = table[table["set"] == name].set_index("variant").reindex(variants)
        at: dict[str, Any] = {"row": 1, "col": column}
        spread.points(figure, rows, variants, _COLOUR, across=True, **at)
        seeds, scores = spread.each_value(rows, variants, "seed")
        figure.add_scatter(
            x=scores,
            y=seeds,
            mode="markers",
            marker={"color": _SEEDS, "size": 14, "symbol": "line-ns-open", "line": {"width": 2}},
            hovertemplate="one seed: %{x:.3f}<extra></extra>",
            **at,
        )
        figure.add_scatter(
            x=rows["score"],
            y=variants,
            mode="markers",
            marker={"color": _COLOUR, "size": 9},
            error_x=spread.error_bars(rows, "score"),
            hovertemplate="%{y}: %{x:.3f}",
            row=1,
            col=column,
        )
    figure.update_xaxes(title_text=SCORE, range=[-0.03, 1.03])
    figure.update_yaxes(autorange="reversed", col=1)
    return figure.update_layout(showlegend=False, height=160 + 46 * len(variants))


def scores_by_system_paper(table: pd.DataFrame) -> Figure:
    """`scores_by_system` for print."""
    sets, variants = _sets(table), _variants(table)
    figure = Figure(
        figsize=(1.6 + 1.9 * len(sets), 1.0 + 0.32 * len(variants)), layout="constrained"
    )
    panels: Any = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for panel, name, title in zip(panels, sets, _titles(table, sets), strict=True):
        rows: Any = table[table["set"] == name].set_index("variant").reindex(variants)
        heights = range(len(variants))
        spread.points_paper(panel, rows, heights, _COLOUR, across=True)
        seeds, scores = spread.each_value(rows, heights, "seed")
        panel.plot(scores, seeds, "|", color=_SEEDS, ms=9, mew=1.5)
        sides = spread.error_bars_paper(rows, "score")
        panel.errorbar(rows["score"], heights, xerr=sides, fmt="o", color=_COLOUR, ms=4, lw=1)
        panel.set(title=title.replace("<br>", "\n"), xlabel=SCORE, xlim=(-0.03, 1.03))
        panel.set_yticks(heights, variants)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_ylim(len(variants) - 0.5, -0.5)
    return figure


def score_against_cost(table: pd.DataFrame, cost: Cost) -> go.Figure:
    """The score over all sets against what a system costs beside the baseline."""
    figure: Any = go.Figure()
    for name, (colour, mark, _), rows in _costing(table, cost):
        figure.add_scatter(
            x=rows[cost],
            y=rows["score"],
            name=name,
            mode="markers",
            marker={"color": colour, "size": 9, "symbol": mark},
            error_y=spread.error_bars(rows, "score"),
            hovertemplate="%{y:.3f} at %{x:.2f}",
        )
    figure.update_xaxes(title_text=COST_LABELS[cost], rangemode="tozero")
    figure.update_yaxes(title_text=SCORE, range=[-0.03, 1.08])
    return figure.update_layout(showlegend=True)


def score_against_cost_paper(table: pd.DataFrame, cost: Cost) -> Figure:
    """`score_against_cost` for print."""
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    panel: Any = figure.subplots()
    drawn: dict[str, Any] = {}
    for name, (colour, _, mark), rows in _costing(table, cost):
        sides = spread.error_bars_paper(rows, "score")
        drawn[name] = panel.errorbar(
            rows[cost], rows["score"], yerr=sides, fmt=mark, color=colour, ms=5, lw=1
        )
    panel.set(xlabel=COST_LABELS[cost], ylabel=SCORE, ylim=(-0.03, 1.08))
    panel.set_xlim(0, 1.1 * table[cost].max())
    panel.grid(alpha=0.3)
    # Not at the points: systems of one cost lie on each other, and their names would too.
    style.legend_above(figure, drawn, 2)
    return figure


def _costing(table: Any, cost: Cost) -> Iterator[tuple[str, tuple[str, str, str], Any]]:
    """Each system that has this cost, how it looks in the figure of every cost, and its row."""
    looks = style.looks(_variants(table))
    rows = _overall(table).dropna(subset=[cost])
    return ((name, looks[name], row) for name, row in rows.groupby("variant", sort=False))


def _overall(table: Any) -> Any:
    """The rows over all sets; where there is one set alone, its rows."""
    return table[table["set"] == _sets(table)[-1]]


def _sets(table: Any) -> list[str]:
    return list(dict.fromkeys(table["set"]))


def _variants(table: Any) -> list[str]:
    return list(dict.fromkeys(table["variant"]))


def _titles(table: pd.DataFrame, sets: list[str]) -> list[str]:
    whole: Any = table
    first = {name: whole[whole["set"] == name].iloc[0] for name in sets}
    return [
        f"{name}<br>n {int(first[name]['n'])}, {int(first[name]['seeds'])} seeds" for name in sets
    ]

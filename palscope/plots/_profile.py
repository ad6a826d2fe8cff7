"""Figures of where models listen: one line a model, over relative depth and over seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from palscope.measures._profile import DEPTH, KNOCKOUT, MASS, SECONDS
from palscope.plots import _spread as spread
from palscope.plots import _style as style

_COLOURS: list[str] = list(cast(Any, qualitative).D3)
_PANELS = [(measure, axis) for measure in (MASS, KNOCKOUT) for axis in (DEPTH, SECONDS)]
_X = {DEPTH: "relative depth (0 first layer, 1 last)", SECONDS: style.TIME}
_Y = {
    (MASS, DEPTH): "share of attention to sound",
    (MASS, SECONDS): "share of attention a second",
    (KNOCKOUT, DEPTH): "KL when cut in a fifth of the layers (nats)",
    (KNOCKOUT, SECONDS): "KL when cut in all layers (nats)",
}


def profiles(bands: pd.DataFrame) -> go.Figure:
    """Mass above, knockout below; depth on the left, seconds on the right.

    Args:
        bands: `profile_bands` of each model, with a column `model`.
    """
    figure: Any = make_subplots(rows=2, cols=2, horizontal_spacing=0.1, vertical_spacing=0.14)
    for number, (model, measure, axis, rows) in _lines(bands):
        panel = _PANELS.index((measure, axis))
        place: dict[str, Any] = {"row": panel // 2 + 1, "col": panel % 2 + 1}
        colour: str = _COLOURS[number % len(_COLOURS)]
        spread.band(figure, rows, "middle", colour, 0.15, legendgroup=model, **place)
        figure.add_scatter(
            x=rows["middle"],
            y=rows["mean"],
            name=model,
            legendgroup=model,
            showlegend=panel == 0,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5},
            customdata=rows[["start", "end", "n"]],
            hovertemplate="%{customdata[0]:.2f} to %{customdata[1]:.2f}: %{y:.3f}, "
            "%{customdata[2]} clip(s)",
            **place,
        )
        figure.update_xaxes(title=_X[axis], **place)
        figure.update_yaxes(title=_Y[measure, axis], rangemode="tozero", **place)
    figure.update_layout(
        template="plotly_white",
        height=720,
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 0},
        margin={"l": 80, "r": 20, "t": 80, "b": 60},
    )
    return figure


def profiles_paper(bands: pd.DataFrame) -> Figure:
    """As `profiles`, for print."""
    figure = Figure(figsize=(8.5, 6.4), layout="constrained")
    panels: Any = figure.subplots(2, 2)
    lines: dict[str, Any] = {}
    for number, (model, measure, axis, rows) in _lines(bands):
        axes = panels.flat[_PANELS.index((measure, axis))]
        colour = _COLOURS[number % len(_COLOURS)]
        spread.band_paper(axes, rows, "middle", colour, 0.15)
        (lines[model],) = axes.plot(
            rows["middle"], rows["mean"], color=colour, marker="o", markersize=3
        )
        axes.set_xlabel(_X[axis])
        axes.set_ylabel(_Y[measure, axis], fontsize="small")
    for axes in panels.flat:
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
    style.legend_above(figure, lines, 4)
    return figure


def _lines(bands: Any) -> Iterator[tuple[int, tuple[str, str, str, Any]]]:
    """(number of the model, (model, measure, axis, rows by their middle))."""
    numbers = {model: number for number, model in enumerate(dict.fromkeys(bands["model"]))}
    grouped = bands.groupby(["model", "measure", "axis"], sort=False, observed=True)
    for (model, measure, axis), rows in grouped:
        rows = rows.assign(middle=(rows["start"] + rows["end"]) / 2).sort_values("middle")
        yield numbers[model], (model, measure, axis, rows)

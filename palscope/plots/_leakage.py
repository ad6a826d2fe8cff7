"""Figures of leakage: how far in time a changed stretch of sound moves tokens, at each depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from palscope.plots import _spread as spread
from palscope.plots import _style as style

FROM_WINDOW = "time from the window's middle (s)"
RELATIVE = "change, that inside the window = 1"
LEAKED = "share of the change\nthat lies outside the window"
_SITES = {
    "mel": "mel",
    "encoder_input": "convolutions",
    "encoder_block": "encoder layer",
    "encoder_output": "encoder output",
    "connector_output": "connector",
    "audio_state": "layer",
    "resid_post": "layer",
}


def leakage_over_time(bands: pd.DataFrame, window_s: float) -> go.Figure:
    """Change by time from the window: a panel for the encoder, and one for each stream.

    Args:
        bands: `depth, site, layer, stream, offset_s, n, mean, low, high`: a `mean_band` over clips
            of `relative` from `leakage_profile`.
        window_s: length of the changed window, which is shaded.
    """
    panels = _panels(bands)
    figure: Any = make_subplots(
        cols=len(panels), shared_yaxes=True, subplot_titles=list(panels), horizontal_spacing=0.03
    )
    for column, (title, lines) in enumerate(panels.items(), start=1):
        for (name, rows), colour in zip(lines.items(), _shades(len(lines)), strict=True):
            place: dict[str, Any] = {"row": 1, "col": column, "legendgroup": title}
            spread.band(figure, rows, "offset_s", colour, 0.15, **place)
            figure.add_scatter(
                x=rows["offset_s"],
                y=rows["mean"],
                name=name,
                legendgrouptitle={"text": title},
                mode="lines",
                line={"color": colour, "width": 2},
                hovertemplate="%{x:.1f} s: %{y:.2f}",
                **place,
            )
        figure.add_vrect(
            x0=-window_s / 2, x1=window_s / 2, fillcolor="#888", opacity=0.15, line_width=0,
            row=1, col=column,
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white", margin={"l": 60, "r": 20, "t": 50, "b": 50}, height=420
    )
    figure.update_xaxes(title=FROM_WINDOW)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title=RELATIVE, col=1)
    return figure


def leakage_over_time_paper(bands: pd.DataFrame, window_s: float) -> Figure:
    """As `leakage_over_time`, for print."""
    panels = _panels(bands)
    figure = Figure(figsize=(1 + 3.2 * len(panels), 3.4), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        axis.axvspan(-window_s / 2, window_s / 2, color="#888", alpha=0.15, linewidth=0)
        for (name, rows), colour in zip(lines.items(), _shades(len(lines)), strict=True):
            spread.band_paper(axis, rows, "offset_s", colour, 0.15)
            axis.plot(rows["offset_s"], rows["mean"], color=colour, linewidth=1.4, label=name)
        axis.set(title=title, xlabel=FROM_WINDOW)
        axis.legend(frameon=False, fontsize="small")
        _plain(axis)
    axes[0].set(ylabel=RELATIVE, ylim=(0, None))  # shared, so after all are drawn
    return figure


def leaked_by_depth(bands: pd.DataFrame) -> go.Figure:
    """Share of the change that lies outside the window: up to the connector, then by layer.

    Args:
        bands: `depth, site, layer, stream, n, mean, low, high`: a `mean_band` over clips of
            `leaked` from `receptive_field`.
    """
    below, above = _two_parts(bands)
    figure: Any = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.03)
    figure.add_scatter(
        x=below["name"],
        y=below["mean"],
        error_y=spread.error_bars(below, "mean"),
        mode="markers",
        marker={"color": "#000000", "size": 7},
        showlegend=False,
        row=1,
        col=1,
    )
    spread.points(figure, below, below["name"], "#000000", row=1, col=1)
    for stream, rows in above.items():
        colour = style.colours([stream])[stream]
        spread.band(figure, rows, "layer", colour, row=1, col=2)
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            name=stream,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 4},
            row=1,
            col=2,
        )
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0.5},
        height=400,
    )
    figure.update_yaxes(range=[0, 1])
    figure.update_yaxes(title=LEAKED.replace("\n", "<br>"), col=1)
    figure.update_xaxes(title=style.LAYER, col=2)
    return figure


def leaked_by_depth_paper(bands: pd.DataFrame) -> Figure:
    """As `leaked_by_depth`, for print."""
    below, above = _two_parts(bands)
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.errorbar(
        below["name"],
        below["mean"],
        yerr=spread.error_bars_paper(below, "mean"),
        fmt="o",
        color="#000000",
        markersize=4,
        capsize=2,
    )
    spread.points_paper(left, below, below["name"], "#000000")
    left.tick_params(axis="x", rotation=60)
    left.set(ylabel=LEAKED, ylim=(0, 1))
    for stream, rows in above.items():
        colour = style.colours([stream])[stream]
        spread.band_paper(right, rows, "layer", colour)
        right.plot(
            rows["layer"], rows["mean"], "o-", color=colour, markersize=3, linewidth=1.5,
            label=stream,
        )  # fmt: skip
    right.set(xlabel=style.LAYER)
    right.legend(frameon=False)
    for axis in (left, right):
        _plain(axis)
    return figure


def _plain(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)


def _panels(bands: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The lines of each panel by name: the encoder's depths; of each stream up to five."""
    whole: Any = bands
    groups = whole["stream"].replace({"": "encoder"})
    panels: dict[str, dict[str, Any]] = {}
    for title, rows in whole.groupby(groups, sort=False):
        depths = sorted(rows["depth"].unique())
        if title != "encoder" and len(depths) > 5:
            chosen = np.linspace(0, len(depths) - 1, 5).round().astype(int)
            depths = [depths[at] for at in chosen]
        panels[str(title)] = {
            _name(of.iloc[0]): of.sort_values("offset_s")
            for of in (rows[rows["depth"] == depth] for depth in depths)
        }
    return panels


def _two_parts(bands: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    """Depths up to the connector by name, and the decoder's by stream."""
    ordered: Any = bands.sort_values("depth")
    inside = ordered["site"].isin(["audio_state", "resid_post"])
    below = ordered[~inside]
    names = [_name(row) for _, row in below.iterrows()]
    streams = [f" {stream}" if stream else "" for stream in below["stream"]]
    below = below.assign(name=[a + b for a, b in zip(names, streams, strict=True)])
    return below, {str(k): v for k, v in ordered[inside].groupby("stream", sort=False)}


def _name(row: Any) -> str:
    return _SITES[row["site"]] + (f" {row['layer']}" if row["layer"] >= 0 else "")


def _shades(count: int) -> list[str]:
    """Colours from dark to light, which colour-blind readers can put in order."""
    scale: Any = colormaps[style.COLOUR_SCALE]
    return [to_hex(scale(at)) for at in np.linspace(0, 0.9, count)]

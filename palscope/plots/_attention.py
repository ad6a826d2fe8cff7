"""Attention figures for screens (plotly). `palscope.plots._paper` has the same for print."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from palscope.audio import Waveform
from palscope.plots import _spread as spread
from palscope.plots import _style as style
from palscope.plots._spectrogram import MelImage, mel_image
from palscope.plots._tables import (
    head_strips,
    layer_head_difference,
    layer_head_means,
    layer_means,
    time_means,
)

_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
}


def mass_by_layer(table: pd.DataFrame) -> go.Figure:
    """Share of attention that goes to text and to each stream, by layer: mean over heads.

    Args:
        table: from `attention_mass` or `by_pathway`; or a `mean_band` by layer and pathway, whose
            confidence band is drawn.
    """
    means: Any = layer_means(table)
    colours = style.colours(means["pathway"])
    figure: Any = go.Figure()
    for pathway, rows in means.groupby("pathway", observed=True):
        _line_with_band(figure, rows, "layer", pathway, colours[pathway])
    figure.update_layout(
        **_LAYOUT,
        height=340,
        hovermode="x unified",
        xaxis={"title": style.LAYER},
        yaxis={"title": style.SHARE, "rangemode": "tozero"},
    )
    return figure


def layer_head_map(
    table: pd.DataFrame, pathway: str, *, minus: pd.DataFrame | None = None
) -> go.Figure:
    """Share of attention that each head of each layer gives to one pathway.

    Layers that cannot see it are left blank.

    Args:
        table: from `attention_mass` or `by_pathway`, or a `mean_band` by layer, head and pathway.
        minus: such a table too: the difference is drawn instead, in percentage points.
    """
    if minus is None:
        means: Any = layer_head_means(table, pathway)
        title = f"{style.SHARE}<br>to {pathway}"
        scale: dict[str, Any] = {"colorscale": style.COLOUR_SCALE, "zmin": 0}
    else:
        means = layer_head_difference(table, minus, pathway)
        title = f"{style.POINTS}<br>to {pathway}"
        scale = {"colorscale": style.DIFFERENCE_SCALE, "zmid": 0}
    figure: Any = go.Figure(
        go.Heatmap(
            z=means.to_numpy(),
            x=means.columns.to_numpy(),
            y=means.index.to_numpy(),
            colorbar={"title": {"text": title}},
            hovertemplate="layer %{y}, head %{x}<br>%{z:.3f}<extra></extra>",
            hoverongaps=False,
            **scale,
        )
    )
    figure.update_layout(
        **_LAYOUT,
        height=max(300, 14 * len(means) + 120),
        xaxis={"title": style.HEAD, "dtick": 1 if means.shape[1] <= 16 else None},
        yaxis={"title": style.LAYER, "range": [means.index.min() - 0.5, means.index.max() + 0.5]},
    )
    return figure


def head_thumbnails(table: pd.DataFrame, pathway: str) -> go.Figure:
    """Each head's attention over time as a small strip: layers upwards, heads side by side.

    Layers that cannot see the pathway are left blank. All strips share one scale of colours.

    Args:
        table: from `attention_mass`, for one row, query and clip.
        pathway: a stream.
    """
    values, edges = head_strips(table, pathway)
    layers, heads, width = values.shape
    seconds = [f"{a:.2f} to {b:.2f} s" for a, b in pairwise(edges)]
    spans = np.full(values.shape, "", dtype=object)
    spans[..., : len(seconds)] = seconds
    step = 1 / width  # so that head h lies from h - 0.5 to h + 0.5
    figure: Any = go.Figure(
        go.Heatmap(
            z=values.reshape(layers, -1),
            x0=-0.5 + step / 2,
            dx=step,
            customdata=spans.reshape(layers, -1),
            colorscale=style.COLOUR_SCALE,
            zmin=0,
            colorbar={"title": {"text": f"{style.SHARE}<br>a slice of {pathway}"}},
            hovertemplate="layer %{y}, %{customdata}<br>%{z:.4f}<extra></extra>",
            hoverongaps=False,
            ygap=1,
        )
    )
    figure.update_layout(
        **_LAYOUT,
        height=max(300, 16 * layers + 120),
        xaxis={
            "title": style.HEAD_STRIPS,
            "dtick": 1 if heads <= 16 else None,
            "range": [-0.5, heads - 0.5],
            "showgrid": False,
        },
        yaxis={"title": style.LAYER, "range": [-0.5, layers - 0.5], "showgrid": False},
    )
    return figure


def time_over_spectrogram(table: pd.DataFrame, waveform: Waveform, clip: int = 0) -> go.Figure:
    """Attention to each slice of a clip, above its log-mel spectrogram, on one axis of seconds.

    Each stream is one line of steps, a step a token; tokens of different streams differ in length.

    Args:
        table: from `attention_mass` (mean over its layers and heads: choose them first) or
            `over_time`.
        waveform: the clip.
        clip: its number in the prompt.
    """
    image = mel_image(waveform)
    means: Any = time_means(table, clip)
    colours = style.colours(means["pathway"])
    figure: Any = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for pathway, rows in means.groupby("pathway", observed=True):
        _steps(figure, rows, pathway, colours[pathway])
    if not len(means):
        figure.add_annotation(
            text=style.NO_AUDIO, xref="x domain", yref="y domain", showarrow=False
        )
        figure.update_xaxes(row=1, col=1)
        figure.add_scatter(x=[], y=[], showlegend=False, row=1, col=1)
    figure.add_trace(spectrogram(image), row=2, col=1)
    figure.update_layout(**_LAYOUT, height=460)
    figure.update_xaxes(range=[0, image.seconds])
    figure.update_xaxes(title=style.TIME, row=2, col=1)
    figure.update_yaxes(title=f"{style.SHARE}<br>per token", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(**frequency_axis(image), row=2, col=1)
    return figure


def spectrogram(image: MelImage) -> go.Heatmap:
    """The log-mel spectrogram as a trace over seconds; its axis is `frequency_axis`."""
    return go.Heatmap(
        z=image.values,
        x0=image.first,
        dx=image.step,
        colorscale=style.COLOUR_SCALE,
        showscale=False,
        hovertemplate="%{x:.2f} s<extra></extra>",
    )


def frequency_axis(image: MelImage) -> dict[str, Any]:
    """Settings of the y axis under a spectrogram."""
    return {
        "title": "frequency (kHz)",
        "tickvals": image.ticks,
        "ticktext": image.tick_labels,
        "range": [-0.5, len(image.values) - 0.5],
    }


def mass_over_time(table: pd.DataFrame) -> go.Figure:
    """Attention a second in bins of time, mean over the clips that last so long.

    Args:
        table: a `mean_band` by pathway, start_s and end_s of `mass_per_second` of each clip.
    """
    means: Any = table
    colours = style.colours(means["pathway"])
    figure: Any = go.Figure()
    for pathway, rows in means.groupby("pathway", observed=True):
        middles = rows.assign(time=(rows["start_s"] + rows["end_s"]) / 2).sort_values("time")
        _line_with_band(figure, middles, "time", pathway, colours[pathway])
    figure.update_layout(
        **_LAYOUT,
        height=340,
        xaxis={"title": f"{style.TIME}, from each clip's start"},
        yaxis={"title": style.SHARE_PER_SECOND, "rangemode": "tozero"},
    )
    return figure


def _line_with_band(figure: Any, rows: Any, x: str, pathway: str, colour: str) -> None:
    spread.band(figure, rows, x, colour, legendgroup=pathway)
    figure.add_scatter(
        x=rows[x],
        y=rows["mean"],
        name=pathway,
        legendgroup=pathway,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 4},
        hovertemplate="%{y:.3f}",
    )


def _steps(figure: Any, rows: Any, pathway: str, colour: str) -> None:
    rows = rows.sort_values("start_s")
    spans = [f"{row.start_s:.2f} to {row.end_s:.2f} s" for row in rows.itertuples()]
    figure.add_scatter(
        x=[*rows["start_s"], rows["end_s"].iloc[-1]],
        y=[*rows["mean"], rows["mean"].iloc[-1]],
        name=pathway,
        mode="lines",
        line={"shape": "hv", "color": colour, "width": 2},
        customdata=[*spans, spans[-1]],
        hovertemplate="%{customdata}: %{y:.4f}",
        row=1,
        col=1,
    )

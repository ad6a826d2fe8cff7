"""Figures of gradient attribution and of its checks: for screens (plotly), and for print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from palscope.audio import Waveform
from palscope.plots import _spread as spread
from palscope.plots import _style as style
from palscope.plots._spectrogram import mel_image
from palscope.plots._style import legend_above

ATTRIBUTION = "attribution (nats)"
EFFECT = "effect of exact patching (nats)"
CORRELATION = "rank correlation with exact patching"
FREQUENCY = "frequency (kHz)"
LOGPROB = "log-probability of the answer (nats)"
_SHARE = {"deletion": "share of the clip deleted", "insertion": "share of the clip inserted"}

# Okabe and Ito's palette, for what is no stream.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_CHANCE = "#7F7F7F"
_MARKS = (("circle", "o"), ("diamond", "D"), ("square", "s"), ("triangle-up", "^"), ("x", "X"))
_DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"), ("dashdot", "-."))


@dataclass(frozen=True)
class _Panel:
    """A picture over time: values `[rows, columns]`, edges of both axes, and what they are."""

    title: str
    values: np.ndarray
    seconds: Any
    rows: Any
    label: str
    signed: bool
    ticks: tuple[tuple[float, ...], tuple[str, ...]] | None = None

    @property
    def most(self) -> float:
        """The largest size of a value."""
        return max(float(np.nanmax(np.abs(self.values), initial=0.0)), 1e-12)


# -- attribution over time ------------------------------------------------------------------------


def heat_map(table: pd.DataFrame, waveform: Waveform) -> go.Figure:
    """The clip's spectrogram; under it, attributions to its bins, and to tokens by layer.

    Red speaks for the clean answer, blue against it; each panel has a scale of its own.

    Args:
        table: attributions of one pair and method, at `mel` and `audio_state`.
        waveform: the clean clip.
    """
    panels = _panels(table, waveform)
    figure: Any = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        subplot_titles=[panel.title for panel in panels],
        vertical_spacing=0.07,
    )
    tall = 1 / len(panels)
    for number, panel in enumerate(panels):
        scale: dict[str, Any] = {"colorscale": style.COLOUR_SCALE}
        if panel.signed:
            scale = {"colorscale": style.DIFFERENCE_SCALE, "zmin": -panel.most, "zmax": panel.most}
        bar = {"len": 0.8 * tall, "y": 1 - (number + 0.5) * tall, "title": {"text": ""}}
        figure.add_heatmap(
            x=panel.seconds,
            y=panel.rows,
            z=panel.values,
            colorbar=bar,
            hovertemplate="%{x:.2f} s, %{y:.3g}: %{z:.4f}<extra></extra>",
            row=number + 1,
            col=1,
            **scale,
        )
        figure.update_yaxes(title=panel.label, row=number + 1, col=1)
        if panel.ticks is not None:
            places, labels = panel.ticks
            figure.update_yaxes(tickvals=places, ticktext=labels, row=number + 1, col=1)
    figure.update_xaxes(title=style.TIME, row=len(panels), col=1)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        height=60 + 210 * len(panels),
    )
    return figure


def heat_map_paper(table: pd.DataFrame, waveform: Waveform) -> Figure:
    """As `heat_map`, for print."""
    panels = _panels(table, waveform)
    figure = Figure(figsize=(6.4, 0.6 + 1.7 * len(panels)), layout="constrained")
    axes: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        shown: dict[str, Any] = {"cmap": style.COLOUR_SCALE}
        if panel.signed:
            shown = {"cmap": style.DIFFERENCE_SCALE, "vmin": -panel.most, "vmax": panel.most}
        picture = axis.pcolormesh(
            panel.seconds, panel.rows, np.ma.masked_invalid(panel.values), rasterized=True, **shown
        )
        figure.colorbar(picture, ax=axis, label=ATTRIBUTION if panel.signed else "log-mel")
        axis.set_title(panel.title, fontsize="medium", loc="left")
        axis.set_ylabel(panel.label)
        if panel.ticks is not None:
            axis.set_yticks(panel.ticks[0], labels=panel.ticks[1])
    axes[-1, 0].set_xlabel(style.TIME)
    axes[-1, 0].set_xlim(0, waveform.seconds)
    return figure


def _panels(table: pd.DataFrame, waveform: Waveform) -> list[_Panel]:
    image = mel_image(waveform)
    bins, columns = image.values.shape
    edges: Any = image.first + image.step * (np.arange(columns + 1) - 0.5)
    rows: Any = np.arange(bins + 1) - 0.5
    panels = [
        _Panel(
            "log-mel spectrogram",
            image.values,
            edges,
            rows,
            FREQUENCY,
            False,
            (image.ticks, image.tick_labels),
        )
    ]
    whole: Any = table
    mel = whole[whole["site"] == "mel"]
    if len(mel):
        wide = mel.pivot_table(index="bin", columns="token", values="attribution", aggfunc="sum")
        step = float(mel["end_s"].max()) / wide.shape[1]
        frames: Any = (np.arange(wide.shape[1] + 1) - 0.5) * step
        rows = np.arange(wide.shape[0] + 1) - 0.5
        # The bins may be others than those of the picture above.
        hz = mel.groupby("bin")["hz"].first().to_numpy()
        wanted = [float(label) * 1000 for label in image.tick_labels]
        places = tuple(float(np.interp(each, hz, np.arange(len(hz)))) for each in wanted)
        known = not np.isnan(hz).any()  # a published front end may not tell
        panels.append(
            _Panel(
                f"attribution to the mel spectrogram{_summed(mel)}",
                wide.to_numpy(),
                frames,
                rows,
                FREQUENCY if known else "mel bin",
                True,
                (places, image.tick_labels) if known else None,
            )
        )
    states = whole[whole["site"] == "audio_state"]
    for stream, tokens in states.groupby("stream", sort=False):
        wide = tokens.pivot_table(
            index="layer", columns="start_s", values="attribution", aggfunc="sum"
        )
        layers = np.arange(int(wide.index.min()), int(wide.index.max()) + 1)
        wide = wide.reindex(layers)
        panels.append(
            _Panel(
                f"attribution to {stream} by layer{_summed(states, tokens)}",
                wide.to_numpy(),
                np.array([*wide.columns, tokens["end_s"].max()], dtype=float),
                np.array([*layers, layers[-1] + 1]) - 0.5,
                style.LAYER,
                True,
            )
        )
    return panels


def _summed(path: Any, shown: Any = None) -> str:
    """What the cells shown add up to, where they do: along one path of integrated gradients.

    Attribution patching takes each layer and token on its own. A layer's effect holds what the
    layers above make of it, so a sum over layers would count one effect many times over.
    """
    if "difference" not in path or path["difference"].isna().any() or path["path"].nunique() > 1:
        return ""
    of = float(path["difference"].iloc[0])
    total = float((path if shown is None else shown)["attribution"].sum())
    return f": {total:.2f} of {of:.2f} nats"


# -- against exact patching -----------------------------------------------------------------------


def scatter(cells: pd.DataFrame) -> go.Figure:
    """Each cell's attribution against its effect by exact patching, a panel a method.

    Args:
        cells: of `beside_patching` for several pairs, with columns `method`, `site` and `stream`.
            On the line both are the same.
    """
    groups, methods = _scattered(cells)
    figure: Any = make_subplots(rows=1, cols=len(methods), subplot_titles=methods)
    named: set[str] = set()
    for (method, name, number), rows in groups:
        figure.add_scatter(
            x=rows["attribution"],
            y=rows["effect"],
            name=name,
            legendgroup=name,
            showlegend=name not in named,
            mode="markers",
            marker={
                "size": 5,
                "opacity": 0.6,
                "color": _PALETTE[number % len(_PALETTE)],
                "symbol": _MARKS[number % len(_MARKS)][0],
            },
            text=_where(rows),
            hovertemplate="%{text}<br>attribution %{x:.2f}, effect %{y:.2f}",
            row=1,
            col=methods.index(method) + 1,
        )
        named.add(name)
    for column, method in enumerate(methods, start=1):
        low, high = _span(cells, method)
        figure.add_scatter(
            x=[low, high],
            y=[low, high],
            mode="lines",
            line={"color": _CHANCE, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=column,
        )
    figure.update_xaxes(title=ATTRIBUTION)
    figure.update_yaxes(title=EFFECT, col=1)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 80, "b": 50},
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom", "x": 0},
        height=440,
    )
    return figure


def scatter_paper(cells: pd.DataFrame) -> Figure:
    """As `scatter`, for print."""
    groups, methods = _scattered(cells)
    figure = Figure(figsize=(0.6 + 3.4 * len(methods), 3.8), layout="constrained")
    axes: Any = figure.subplots(1, len(methods), squeeze=False)[0]
    marks: dict[str, Any] = {}
    for (method, name, number), rows in groups:
        marks[name] = axes[methods.index(method)].scatter(
            rows["attribution"],
            rows["effect"],
            s=8,
            alpha=0.6,
            linewidths=0,
            color=_PALETTE[number % len(_PALETTE)],
            marker=_MARKS[number % len(_MARKS)][1],
        )
    for axis, method in zip(axes, methods, strict=True):
        axis.plot(*[_span(cells, method)] * 2, color=_CHANCE, linewidth=1, linestyle=":")
        axis.set_title(method, fontsize="medium")
        axis.set_xlabel(ATTRIBUTION)
        _plain(axis)
    axes[0].set_ylabel(EFFECT)
    figure.legend(
        list(marks.values()), list(marks), frameon=False, ncols=3, loc="outside upper left"
    )
    return figure


def by_layer(depth: pd.DataFrame) -> go.Figure:
    """Correlation with exact patching by layer, above the size of what there is to correlate.

    Args:
        depth: of `agreement` by method, stream and layer.
    """
    figure: Any = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3])
    sized: set[str] = set()
    for method, stream, colour, dash, rows in _lines_by_layer(depth):
        spread.band(figure, rows, "layer", colour, 0.12, "spearman", row=1, col=1)
        figure.add_scatter(
            x=rows["layer"],
            y=rows["spearman"],
            name=f"{stream}, {method}",
            mode="lines+markers",
            line={"color": colour, "dash": dash[0], "width": 2},
            hovertemplate="layer %{x}: %{y:.2f}",
            row=1,
            col=1,
        )
        if stream not in sized:
            sized.add(stream)
            figure.add_scatter(
                x=rows["layer"],
                y=rows["size"],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                showlegend=False,
                hovertemplate=stream + ", layer %{x}: %{y:.3f} nats<extra></extra>",
                row=2,
                col=1,
            )
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 80, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        height=500,
    )
    figure.update_xaxes(title=style.LAYER, row=2)
    figure.update_yaxes(title=CORRELATION, range=[-1.05, 1.05], row=1)
    figure.update_yaxes(title="mean effect (nats)", rangemode="tozero", row=2)
    return figure


def by_layer_paper(depth: pd.DataFrame) -> Figure:
    """As `by_layer`, for print."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes: Any = figure.subplots(2, 1, sharex=True, height_ratios=[0.7, 0.3])
    top, bottom = axes
    sized: set[str] = set()
    for method, stream, colour, dash, rows in _lines_by_layer(depth):
        layers = rows["layer"].astype(float)
        spread.band_paper(top, rows, "layer", colour, 0.12, "spearman")
        top.plot(
            layers,
            rows["spearman"],
            f"o{dash[1]}",
            color=colour,
            label=f"{stream}, {method}",
            markersize=3,
        )
        if stream not in sized:
            sized.add(stream)
            bottom.plot(layers, rows["size"], "o-", color=colour, markersize=3)
    top.set(ylabel=CORRELATION.replace(" with", "\nwith"), ylim=(-1.05, 1.05))
    bottom.set(xlabel=style.LAYER, ylabel="mean effect\n(nats)", ylim=(0, None))
    _plain(top)
    _plain(bottom)
    top.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), fontsize="small")
    return figure


# -- deletion and insertion -----------------------------------------------------------------------


def curves(bands: pd.DataFrame) -> go.Figure:
    """The answer's log-probability as sound is deleted, and as it is inserted, in each order.

    Args:
        bands: of `curve_bands`.
    """
    kinds = _distinct(bands, "curve")
    figure: Any = make_subplots(rows=1, cols=len(kinds), subplot_titles=kinds, shared_yaxes=True)
    for number, order, curve, rows in _orders(bands):
        colour, dash = _order_style(order, number)
        place: dict[str, Any] = {"row": 1, "col": kinds.index(curve) + 1}
        spread.band(figure, rows, "share", colour, 0.1, legendgroup=order, **place)
        figure.add_scatter(
            x=rows["share"],
            y=rows["mean"],
            name=order,
            legendgroup=order,
            showlegend=curve == kinds[0],
            mode="lines+markers",
            line={"color": colour, "dash": dash[0], "width": 2},
            marker={"size": 4},
            hovertemplate="%{x:.2f} of the clip: %{y:.2f}",
            **place,
        )
    for column, kind in enumerate(kinds, start=1):
        figure.update_xaxes(title=_SHARE[kind], row=1, col=column)
    figure.update_yaxes(title=LOGPROB, col=1)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 100, "b": 50},
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom", "x": 0},
        height=440,
    )
    return figure


def curves_paper(bands: pd.DataFrame) -> Figure:
    """As `curves`, for print."""
    kinds = _distinct(bands, "curve")
    figure = Figure(figsize=(0.6 + 3.4 * len(kinds), 3.8), layout="constrained")
    axes: Any = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    lines: dict[str, Any] = {}
    for number, order, curve, rows in _orders(bands):
        colour, dash = _order_style(order, number)
        axis = axes[kinds.index(curve)]
        spread.band_paper(axis, rows, "share", colour, 0.1)
        (lines[order],) = axis.plot(
            rows["share"], rows["mean"], f"o{dash[1]}", color=colour, markersize=3
        )
    for axis, kind in zip(axes, kinds, strict=True):
        axis.set_title(kind, fontsize="medium")
        axis.set_xlabel(_SHARE[kind])
        _plain(axis)
    axes[0].set_ylabel(LOGPROB)
    legend_above(figure, lines, 2)
    return figure


# -- what both kinds share ------------------------------------------------------------------------


def _distinct(table: Any, column: str) -> list[str]:
    return [str(each) for each in table[column].unique()]


def _scattered(cells: pd.DataFrame) -> tuple[list[tuple[tuple[str, str, int], Any]], list[str]]:
    """Rows by (method, what is patched, its number), and the methods."""
    table: Any = cells.copy()
    stream = table["stream"].fillna("").astype(str)
    table["what"] = (table["site"].str.replace("_", " ") + ", " + stream).str.removesuffix(", ")
    names = _distinct(table, "what")
    methods = _distinct(table, "method")
    grouped: Any = table.groupby(["method", "what"], sort=False)
    groups: list[tuple[tuple[str, str, int], Any]] = []
    for key, rows in cast("list[tuple[tuple[str, str], Any]]", [*grouped]):
        method, name = key
        groups.append(((method, name, names.index(name)), rows))
    return groups, methods


def _where(rows: Any) -> list[str]:
    layers = ", layer " + rows["layer"].astype("Int64").astype("string")
    return cast("list[str]", (rows["pair"] + ", " + rows["place"] + layers.fillna("")).tolist())


def _span(cells: pd.DataFrame, method: str) -> tuple[float, float]:
    """The ends of the line on which both are the same, within what is drawn."""
    rows: Any = cells[cells["method"] == method]
    both = cast(np.ndarray, rows[["attribution", "effect"]].to_numpy())
    return float(both.min(0).max()), float(both.max(0).min())


def _lines_by_layer(depth: pd.DataFrame) -> list[tuple[str, str, str, tuple[str, str], Any]]:
    """Method, stream, colour, dash and rows of each line."""
    methods = _distinct(depth, "method")
    colours = style.colours(_distinct(depth, "stream"))
    grouped: Any = depth.sort_values("layer").groupby(["method", "stream"])
    return [
        (method, stream, colours[stream], _DASHES[methods.index(method)], rows)
        for (method, stream), rows in grouped
    ]


def _orders(bands: pd.DataFrame) -> list[tuple[int, str, str, Any]]:
    """Number, name, curve and rows of each line."""
    names = _distinct(bands, "order")
    grouped: Any = bands.sort_values("share").groupby(["order", "curve"], sort=False)
    return [(names.index(order), order, curve, rows) for (order, curve), rows in grouped]


def _order_style(order: str, number: int) -> tuple[str, tuple[str, str]]:
    if order == "random":
        return _CHANCE, _DASHES[1]
    return _PALETTE[number % len(_PALETTE)], _DASHES[0]


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)

"""Attention figures for print (matplotlib); `palscope.plots._attention` has them for screens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from palscope.audio import Waveform
from palscope.plots import _spread as spread
from palscope.plots import _style as style
from palscope.plots._spectrogram import mel_image
from palscope.plots._tables import (
    head_strips,
    layer_head_difference,
    layer_head_means,
    layer_means,
    time_means,
)


def mass_by_layer(table: pd.DataFrame) -> Figure:
    """As `palscope.plots._attention.mass_by_layer`."""
    means: Any = layer_means(table)
    colours = style.colours(means["pathway"])
    figure, axes = _one_panel((6.4, 3.4))
    for pathway, rows in means.groupby("pathway", observed=True):
        _line_with_band(axes, rows, "layer", pathway, colours[pathway])
    axes.set(xlabel=style.LAYER, ylabel=style.SHARE, ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)
    return figure


def layer_head_map(
    table: pd.DataFrame, pathway: str, *, minus: pd.DataFrame | None = None
) -> Figure:
    """As `palscope.plots._attention.layer_head_map`."""
    if minus is None:
        means: Any = layer_head_means(table, pathway)
        shown: dict[str, Any] = {"cmap": style.COLOUR_SCALE, "vmin": 0}
        label = f"{style.SHARE} to {pathway}"
    else:
        means = layer_head_difference(table, minus, pathway)
        most = max(float(np.nanmax(np.abs(means.to_numpy()), initial=0.0)), 1e-9)
        shown = {"cmap": style.DIFFERENCE_SCALE, "vmin": -most, "vmax": most}
        label = f"{style.POINTS} to {pathway}"
    height = min(9.0, max(3.0, 0.17 * len(means) + 1))
    figure, axes = _one_panel((min(9.0, max(3.6, 0.25 * means.shape[1] + 2)), height))
    picture = axes.imshow(means.to_numpy(), origin="lower", aspect="auto", **shown)
    for axis, labels in ((axes.xaxis, means.columns), (axes.yaxis, means.index)):
        every = -(-len(labels) // 16)
        axis.set_ticks(range(0, len(labels), every), labels=list(labels[::every]))
    axes.set(xlabel=style.HEAD, ylabel=style.LAYER)
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label=label)
    return figure


def head_thumbnails(table: pd.DataFrame, pathway: str) -> Figure:
    """As `palscope.plots._attention.head_thumbnails`."""
    values, _ = head_strips(table, pathway)
    layers, heads, _ = values.shape
    figure, axes = _one_panel((min(12.0, max(4.0, 0.8 * heads + 2)), min(9.0, 0.2 * layers + 1)))
    picture = axes.imshow(
        values.reshape(layers, -1),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=style.COLOUR_SCALE,
        vmin=0,
        extent=(-0.5, heads - 0.5, -0.5, layers - 0.5),
    )
    axes.set(xlabel=style.HEAD_STRIPS, ylabel=style.LAYER)
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label=f"{style.SHARE} a slice of {pathway}")
    return figure


def time_over_spectrogram(table: pd.DataFrame, waveform: Waveform, clip: int = 0) -> Figure:
    """As `palscope.plots._attention.time_over_spectrogram`."""
    image = mel_image(waveform)
    means: Any = time_means(table, clip)
    colours = style.colours(means["pathway"])
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for pathway, rows in means.groupby("pathway", observed=True):
        ordered = rows.sort_values("start_s")
        top.stairs(
            ordered["mean"],
            [*ordered["start_s"], ordered["end_s"].iloc[-1]],
            baseline=None,
            label=pathway,
            color=colours[pathway],
            linewidth=1.5,
        )
    if len(means):
        _legend(top)
    else:
        top.text(0.5, 0.5, style.NO_AUDIO, ha="center", va="center", transform=top.transAxes)
    top.set(ylabel=f"{style.SHARE}\nper token", ylim=(0, None))
    _plain(top)
    left = image.first - image.step / 2
    bins, columns = image.values.shape
    bottom.imshow(
        image.values,
        origin="lower",
        aspect="auto",
        cmap=style.COLOUR_SCALE,
        extent=(left, left + columns * image.step, -0.5, bins - 0.5),
    )
    bottom.set(xlabel=style.TIME, ylabel="frequency (kHz)", xlim=(0, image.seconds))
    bottom.set_yticks(image.ticks, labels=image.tick_labels)
    bottom.set_ylim(-0.5, bins - 0.5)
    return figure


def mass_over_time(table: pd.DataFrame) -> Figure:
    """As `palscope.plots._attention.mass_over_time`."""
    means: Any = table
    colours = style.colours(means["pathway"])
    figure, axes = _one_panel((6.4, 3.0))
    for pathway, rows in means.groupby("pathway", observed=True):
        middles = rows.assign(time=(rows["start_s"] + rows["end_s"]) / 2).sort_values("time")
        _line_with_band(axes, middles, "time", pathway, colours[pathway])
    axes.set(
        xlabel=f"{style.TIME}, from each clip's start",
        ylabel=style.SHARE_PER_SECOND,
        ylim=(0, None),
    )
    _legend(axes)
    return figure


def _one_panel(size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _line_with_band(axes: Any, rows: Any, x: str, pathway: str, colour: str) -> None:
    spread.band_paper(axes, rows, x, colour)
    axes.plot(rows[x], rows["mean"], "o-", color=colour, label=pathway, markersize=3, linewidth=1.5)

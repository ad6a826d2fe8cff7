"""Figures of attention: by layer, by head, and over the seconds of a clip."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from palscope.audio import Waveform
from palscope.plots._axes import HEAD, LAYER, SHARE, SHARE_PER_SECOND, SHARE_PER_TOKEN, TIME
from palscope.plots._cells import Heat, Spectrogram, frequency_axis
from palscope.plots._figure import Caption, Figure, Mark, Panel
from palscope.plots._grammar import Line, Steps
from palscope.plots._looks import looks
from palscope.plots._spectrogram import mel_image
from palscope.plots._tables import (
    head_strips,
    layer_head_difference,
    layer_head_means,
    layer_means,
    time_means,
)

NO_AUDIO = "no audio token is seen here"


def mass_by_layer(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Share of attention that goes to text and to each stream, by layer: mean over heads.

    Args:
        table: from `attention_mass` or `by_pathway`; or a `mean_band` by layer and pathway, whose
            confidence band is drawn.
        caption: what the figure says of its numbers.
    """
    means = layer_means(table)
    lines = pathway_lines(means, "layer", over=layers_of(means))
    return Figure([Panel(lines, LAYER, SHARE)], caption, means)


def layer_head_map(
    table: pd.DataFrame, pathway: str, *, minus: pd.DataFrame | None = None, caption: Caption
) -> Figure:
    """Share of attention that each head of each layer gives to one pathway.

    Layers that cannot see it are left blank.

    Args:
        table: from `attention_mass` or `by_pathway`, or a `mean_band` by layer, head and pathway.
        pathway: text or a stream.
        minus: such a table too: the difference is drawn instead, in percentage points.
        caption: what the figure says of its numbers.

    Raises:
        ValueError: the table has no such pathway.
    """
    if minus is None:
        means, value = layer_head_means(table, pathway), "mean"
        label = SHARE.title
    else:
        means, value = layer_head_difference(table, minus, pathway), "difference"
        label = "percentage points of attention"
    heat = Heat.of(means, "head", "layer", value, label, signed=minus is not None)
    return Figure([Panel([heat], HEAD, LAYER, f"to {pathway}")], caption, means)


def head_thumbnails(table: pd.DataFrame, pathway: str, *, caption: Caption) -> Figure:
    """Each head's attention over time as a small strip: layers upwards, heads side by side.

    Layers that cannot see the pathway are left blank.

    Args:
        table: from `attention_mass`, for one row, query and clip.
        pathway: a stream.
        caption: what the figure says of its numbers.
    """
    values, edges = head_strips(table, pathway)
    layers, heads, width = values.shape
    spans = [f"{a:.2f} to {b:.2f} s" for a, b in pairwise(edges)]
    spans += [""] * (width - len(spans))
    hover = [[f"layer {layer}, {span}" for span in spans * heads] for layer in range(layers)]
    strips = Heat(
        values.reshape(layers, -1),
        np.arange(heads * width + 1) / width - 0.5,
        np.arange(layers),
        f"{SHARE.title} a slice",
        hover=np.array(hover),
    )
    along = replace(HEAD, title="head; within each, time from left")
    return Figure([Panel([strips], along, LAYER, f"to {pathway}")], caption, table)


def time_over_spectrogram(
    table: pd.DataFrame, waveform: Waveform, clip: int = 0, *, caption: Caption
) -> Figure:
    """Attention to each slice of a clip, above its log-mel spectrogram, on one axis of seconds.

    Each stream is one line of steps, a step a token; tokens of different streams differ in length.

    Args:
        table: from `attention_mass` (mean over its layers and heads: choose them first) or
            `over_time`.
        waveform: the clip.
        clip: its number in the prompt.
        caption: what the figure says of its numbers.
    """
    image = mel_image(waveform)
    means: Any = time_means(table, clip)
    named = looks(means["pathway"])
    steps = [
        Steps(rows["start_s"], rows["end_s"], rows["mean"], str(pathway), named[pathway])
        for pathway, rows in means.sort_values("start_s").groupby("pathway", observed=True)
    ]
    time = replace(TIME, limits=(0, image.seconds))
    above = Panel(steps, time, SHARE_PER_TOKEN, empty=NO_AUDIO)
    below = Panel([Spectrogram(image)], time, frequency_axis(image), row=1)
    return Figure([above, below], caption, means)


def mass_over_time(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Attention a second in bins of time, mean over the clips that last so long.

    Args:
        table: a `mean_band` by pathway, start_s and end_s of `mass_per_second` of each clip.
        caption: what the figure says of its numbers.
    """
    middles: Any = table
    middles = middles.assign(time=(middles["start_s"] + middles["end_s"]) / 2)
    time = replace(TIME, title="time from each clip's start")
    lines = pathway_lines(middles.sort_values("time"), "time")
    return Figure([Panel(lines, time, SHARE_PER_SECOND)], caption, table)


def pathway_lines(means: Any, x: str, over: Any = None) -> list[Mark]:
    """A line a pathway, in its look."""
    named = looks(means["pathway"])
    return [
        Line.of(rows, x, over=over, name=str(pathway), look=named[pathway])
        for pathway, rows in means.groupby("pathway", observed=True)
    ]


def layers_of(table: Any) -> range:
    """From the lowest to the highest layer of a table."""
    return range(int(table["layer"].min()), int(table["layer"].max()) + 1)

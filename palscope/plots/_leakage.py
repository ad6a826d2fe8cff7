"""Figures of leakage: how far in time a changed stretch of sound moves tokens, at each depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from palscope.plots._axes import LAYER
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line, Points, Span
from palscope.plots._looks import looks, ramp

FROM_WINDOW = Axis("time from the window's middle", "s")
RELATIVE = Axis("change, that inside the window = 1", limits=(0, None))
LEAKED = Axis("share of the change\nthat lies outside the window", limits=(0, 1))
_SITES = {
    "mel": "mel",
    "encoder_input": "convolutions",
    "encoder_block": "encoder layer",
    "encoder_output": "encoder output",
    "connector_output": "connector",
    "audio_state": "layer",
    "resid_post": "layer",
}
_MOST = 5
"""Depths of a stream that are drawn."""


def leakage_over_time(bands: pd.DataFrame, window_s: float, *, caption: Caption) -> Figure:
    """Change by time from the window: a panel for the encoder, and one for each stream.

    Args:
        bands: `depth, site, layer, stream, offset_s, n, mean, low, high`: a `mean_band` over clips
            of `relative` from `leakage_profile`.
        window_s: length of the changed window, which is shaded.
        caption: what the figure says of its numbers.
    """
    whole: Any = bands
    window = Span(-window_s / 2, window_s / 2)
    panels: list[Panel] = []
    for column, (stream, rows) in enumerate(whole.groupby("stream", sort=False)):
        depths = sorted(rows["depth"].unique())
        if stream and len(depths) > _MOST:
            chosen = np.linspace(0, len(depths) - 1, _MOST).round().astype(int)
            depths = [depths[at] for at in chosen]
        lines = [
            Line.of(of, "offset_s", name=_name(of.iloc[0]), look=look)
            for depth, look in zip(depths, ramp(len(depths)), strict=True)
            for of in [rows[rows["depth"] == depth].sort_values("offset_s")]
        ]
        title = str(stream) or "encoder"
        panels.append(Panel([window, *lines], FROM_WINDOW, RELATIVE, title, column=column))
    return Figure(panels, caption, bands)


def leaked_by_depth(bands: pd.DataFrame, *, caption: Caption) -> Figure:
    """Share of the change that lies outside the window: up to the connector, then by layer.

    Args:
        bands: `depth, site, layer, stream, n, mean, low, high`: a `mean_band` over clips of
            `leaked` from `receptive_field`.
        caption: what the figure says of its numbers.
    """
    ordered: Any = bands.sort_values("depth")
    inside = ordered["site"].isin(["audio_state", "resid_post"])
    below, above = ordered[~inside], ordered[inside]
    below = below.assign(name=[_name(row) for _, row in below.iterrows()])
    depths = Axis("up to the connector", categories=tuple(below["name"].unique()))
    named = looks(above["stream"])
    lines = [
        Line.of(rows, "layer", name=str(stream), look=named[stream])
        for stream, rows in above.groupby("stream", sort=False)
    ]
    panels = [
        Panel([Points.of(below, "name")], depths, LEAKED),
        Panel(lines, LAYER, LEAKED, column=1),
    ]
    return Figure(panels, caption, bands)


def _name(row: Any) -> str:
    """A depth in words, with the stream that is there."""
    depth = _SITES[row["site"]] + (f" {row['layer']}" if row["layer"] >= 0 else "")
    return f"{row['stream']}: {depth}" if row["stream"] else depth

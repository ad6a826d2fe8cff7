"""Figures of gradient attribution and of its checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from palscope.audio import Waveform
from palscope.plots._axes import LAYER
from palscope.plots._cells import Heat, Spectrogram, frequency_axis
from palscope.plots._figure import Caption, Figure, Mark, Panel
from palscope.plots._grammar import Axis, Line, Points
from palscope.plots._looks import DASHES, REFERENCE, Look, looks
from palscope.plots._spectrogram import MelImage, mel_image

_OF_BIN = "attribution, a bin (nats)"
_OF_TOKEN = "attribution, a token and layer (nats)"
_EFFECT = Axis("effect of exact patching", "nats")
_CORRELATION = Axis("rank correlation with exact patching", limits=(-1.05, 1.05))
_SIZE = Axis("mean effect", "nats", limits=(0, None))
_LOGPROB = Axis("log-probability of the answer", "nats")
_LOW = 0.4
"""Height of a map of layers, beside one whose cells are counted: it stands under others."""
_SHARE = {"deletion": "share of the clip deleted", "insertion": "share of the clip inserted"}


# -- attribution over time ------------------------------------------------------------------------


def heat_map(table: pd.DataFrame, waveform: Waveform, *, caption: Caption) -> Figure:
    """The clip's spectrogram; under it, attributions to its bins, and to tokens by layer.

    Red speaks for the clean answer, blue against it. What a bin and what a token are worth are
    different things: each has a scale, that of tokens is shared by the streams.

    Args:
        table: attributions of one pair and method, at `mel` and `audio_state`. Titles say what
            cells add up to, where they do: along one path of integrated gradients.
        waveform: the clean clip.
        caption: of the figure.
    """
    image = mel_image(waveform)
    whole: Any = table
    heats: list[tuple[Heat, Axis, str]] = []
    mel = whole[whole["site"] == "mel"]
    if len(mel):
        heats.append(
            (_bins(mel), _frequency(mel, image), "attribution to the mel spectrogram (nats)")
        )
    states = whole[whole["site"] == "audio_state"]
    for stream, tokens in states.groupby("stream", sort=False):
        heat = _tokens(tokens, of=states)
        heats.append((heat, LAYER, f"attribution to {stream} by layer (nats)"))
    time = Axis("time", "s", limits=(0, image.seconds))
    panels = [Panel([Spectrogram(image)], time, frequency_axis(image), "log-mel spectrogram")]
    panels += [
        Panel([heat], time, y, title, row=row, height=_LOW if y is LAYER else 1)
        for row, (heat, y, title) in enumerate(heats, start=1)
    ]
    return Figure(panels, caption, table)


def _bins(mel: Any) -> Heat:
    wide = mel.pivot(index="bin", columns="token", values="attribution")
    step = float(mel["end_s"].max()) / wide.shape[1]
    edges = (np.arange(wide.shape[1] + 1) - 0.5) * step
    return Heat(
        wide, edges, list(wide.index), _OF_BIN, signed=True, adds_to=_difference(mel)
    )  # fmt: skip


def _frequency(mel: Any, image: MelImage) -> Axis:
    """The bins may be others than those of the picture above; a front end may not tell their Hz."""
    hz = mel.groupby("bin")["hz"].first().to_numpy(dtype=float)
    if np.isnan(hz).any():
        return Axis("mel bin")
    known = [label for label in image.tick_labels if hz[0] <= 1000 * float(label) <= hz[-1]]
    places = np.interp([1000 * float(label) for label in known], hz, np.arange(len(hz)))
    return Axis("frequency", "kHz", ticks=tuple(zip(places.tolist(), known, strict=True)))


def _tokens(tokens: Any, *, of: Any) -> Heat:
    """One stream's, over the layers of all streams."""
    wide = tokens.pivot(index="layer", columns="start_s", values="attribution")
    layers = list(range(int(of["layer"].min()), int(of["layer"].max()) + 1))
    edges = [*wide.columns, tokens["end_s"].max()]
    values = wide.reindex(layers)
    return Heat(values, edges, layers, _OF_TOKEN, signed=True, adds_to=_difference(of))


def _difference(path: Any) -> float | None:
    """What all cells of one path add up to; None where they do not.

    Attribution patching takes each layer and token on its own. A layer's effect holds what the
    layers above make of it, so a sum over layers would count one effect many times over.
    """
    if "difference" not in path or path["difference"].isna().any() or path["path"].nunique() > 1:
        return None
    return float(path["difference"].iloc[0])


# -- against exact patching -----------------------------------------------------------------------


def scatter(cells: pd.DataFrame, *, caption: Caption) -> Figure:
    """Each cell's attribution against its effect by exact patching, a panel a method.

    Args:
        cells: of `beside_patching` for several pairs, with columns `method`, `site` and `stream`.
            On the dotted line both are the same.
        caption: of the figure.
    """
    table: Any = cells.assign(what=_what(cells))
    own = {name: replace(look, light=True) for name, look in looks(table["what"].unique()).items()}
    panels: list[Panel] = []
    for column, (method, rows) in enumerate(table.groupby("method", sort=False)):
        marks: list[Mark] = [
            Points(
                mine["attribution"].to_numpy(), mine["effect"], 1,
                name=name, look=own[name], hover=tuple(_where(mine)),
            )
            for name, mine in rows.groupby("what", sort=False)
        ]  # fmt: skip
        both = rows[["attribution", "effect"]].to_numpy(dtype=float)
        ends = both.min(0).max(), both.max(0).min()
        if ends[0] < ends[1]:
            marks.append(Line(ends, ends, 1, name="both the same", look=REFERENCE))
        panels.append(Panel(marks, Axis(str(method), "nats"), _EFFECT, column=column))
    return Figure(panels, caption, cells)


def by_layer(depth: pd.DataFrame, *, caption: Caption) -> Figure:
    """Correlation with exact patching by layer, above the size of what there is to correlate.

    Args:
        depth: of `agreement` by method, stream and layer.
        caption: of the figure.
    """
    table: Any = depth.rename(columns={"pairs": "n"})
    dashes = dict(zip(table["method"].unique(), DASHES, strict=False))
    own = looks(table["stream"].unique())
    rows = table.sort_values("layer", kind="stable")
    layers = list(rows["layer"].unique())
    correlations = [
        Line.of(
            mine, "layer", "spearman", over=layers, spread="spearman",
            name=f"{stream}, {method}", look=replace(own[stream], dash=dashes[method]),
        )
        for (method, stream), mine in rows.groupby(["method", "stream"])
    ]  # fmt: skip
    # Exact patching is the same whatever it is compared with.
    exact = rows.drop_duplicates(["stream", "layer"])[["stream", "layer", "size", "n"]]
    sizes = [
        Line.of(mine, "layer", "size", over=layers, look=own[stream])
        for stream, mine in exact.groupby("stream")
    ]
    panels = [
        Panel(correlations, LAYER, _CORRELATION),
        Panel(sizes, LAYER, _SIZE, row=1, height=0.5),
    ]
    return Figure(panels, caption, depth)


def _what(cells: Any) -> Any:
    """What is patched: the site, and of which stream."""
    stream = cells["stream"].fillna("").astype(str)
    return (cells["site"].str.replace("_", " ") + ", " + stream).str.removesuffix(", ")


def _where(rows: Any) -> list[str]:
    layers = ", layer " + rows["layer"].astype("Int64").astype("string")
    return (rows["pair"] + ", " + rows["place"] + layers.fillna("")).tolist()


# -- deletion and insertion -----------------------------------------------------------------------


def curves(bands: pd.DataFrame, *, caption: Caption) -> Figure:
    """The answer's log-probability as sound is deleted, and as it is inserted, in each order.

    Args:
        bands: of `curve_bands`.
        caption: of the figure.
    """
    whole: Any = bands
    rows = whole.sort_values("share", kind="stable")
    orders = list(whole["order"].unique())
    own = looks(orders) | {"random": Look("grey", dash="dash")}
    panels = [
        Panel(
            [
                Line.of(mine[mine["order"] == order], "share", name=order, look=own[order])
                for order in orders
            ],
            Axis(_SHARE[curve]),
            _LOGPROB,
            curve,
            column=column,
        )
        for column, curve in enumerate(whole["curve"].unique())
        for mine in [rows[rows["curve"] == curve]]
    ]
    return Figure(panels, caption, bands)

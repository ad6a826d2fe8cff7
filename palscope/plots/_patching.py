"""Figures of activation patching: the effect of every site and stretch, layer, stream or head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from palscope.plots._cells import Heat
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line, Points, Rule
from palscope.plots._looks import looks

EFFECT = "share of the difference restored"
BASELINE = "random clip"

_EFFECT = Axis(EFFECT)
_LEAST = 0.05
"""Colours reach so far at least: what is next to nothing shall look so."""
_ALONG = {"place": "patched stretch", "head": "head", "stream": "patched stream"}
_SITES = {
    "waveform": "waveform (the sound itself)",
    "encoder_output": "encoder output",
    "connector_output": "connector output",
    "audio_state": "audio state, all layers",
}


def note(
    effects: pd.DataFrame,
    controls: pd.DataFrame,
    pairs: int,
    all_pairs: bool,
    direction: str,
    metric: str,
) -> str:
    """What must be said beside a figure: direction, metric, pairs left out, controls.

    Args:
        effects: of `patching_effects`, one kind of pair.
        controls: of `check_controls`.
        pairs: how many were measured.
        all_pairs: whether those that are not answered right count too.
    """
    rows: Any = effects
    used = int(rows["n"].max())
    left = "all pairs" if all_pairs else f"{pairs - used} not answered right are left out"
    stated = [
        f"{row['control']}-patch {row['expected']:g} (worst pair off by {row['worst']:.1g})"
        for row in controls.to_dict("records")
    ]
    other = rows.loc[rows["run"] == "other", "effect"]
    if len(other):
        stated.append(f"{BASELINE} {other.min():.2f} to {other.max():.2f}")
    return f"{direction}, {metric}; {used} of {pairs} pairs ({left}); {', '.join(stated)}"


def effects_by_site(effects: pd.DataFrame, *, caption: Caption, note: str = "") -> Figure:
    """The effect of each stretch of sound at each site, with intervals.

    Hollow marks are the random-clip baseline: another clip's values in the same place.

    Args:
        effects: of `patching_effects` by `site` and `place`.
        caption: of the figure.
        note: a line under it.
    """
    places = _order(effects, "place")
    sites = [site for site in _SITES if site in _order(effects, "site")]
    own = looks(sites)
    width = 0.7 / len(sites)
    series: list[Points] = []
    for run, rows in _runs(effects):
        for number, site in enumerate(sites):
            mine = rows[rows["site"] == site]
            # Sites stand beside each other at each place, a baseline close to its own.
            shift = (number - (len(sites) - 1) / 2) * width + 0.3 * width * (run == "other")
            series.append(
                Points.of(
                    mine.assign(at=mine["place"].map(places.index) + shift),
                    "at",
                    "effect",
                    name=_SITES[site] if run == "patch" else "",
                    look=replace(own[site], hollow=run == "other"),
                    hover=tuple(mine["place"] + (f", {BASELINE}" if run == "other" else "")),
                )
            )
    along = Axis(_ALONG["place"], categories=tuple(places))
    panel = Panel([*series, Rule(0), Rule(1)], along, _EFFECT)
    return Figure([panel], caption, effects, _said(note, effects, f"hollow: {BASELINE}"))


def effect_map(effects: pd.DataFrame, x: str, *, caption: Caption, note: str = "") -> Figure:
    """The effect of every cell, layers upwards. Cells in which nothing stands are blank.

    Args:
        effects: of `patching_effects` by `layer`, `last_layer` (where layers are patched together)
            and `x`.
        x: `place`, `stream` or `head`.
        caption: of the figure.
        note: a line under it.
    """
    rows: Any = _patches(effects)
    rows = rows.assign(layers=_layer_names(rows), **{x: rows[x].map(_shown)})
    layers = list(rows.sort_values("layer")["layers"].unique())
    columns = list(rows[x].unique())
    rows = rows.assign(
        layers=pd.Categorical(rows["layers"], layers), **{x: pd.Categorical(rows[x], columns)}
    )
    heat = Heat.of(rows, x, "layers", "effect", EFFECT, signed=True)
    panel = Panel(
        [heat],
        Axis(_ALONG[x], categories=tuple(columns)),
        Axis(_layers_title(rows, named=True), categories=tuple(layers)),
    )
    most = max(_LEAST, float(np.nanmax(np.abs(heat.values), initial=0.0)))
    return Figure([panel], caption, effects, note, {EFFECT: (-most, most)})


def effect_lines(effects: pd.DataFrame, line: str, *, caption: Caption, note: str = "") -> Figure:
    """The effect by layer, a line for each value of `line`, with bands; dotted: random clip.

    Args:
        effects: of `patching_effects` by `layer`, `last_layer` and `line`.
        line: `place` or `stream`.
        caption: of the figure.
        note: a line under it.
    """
    names = _order(effects, line)
    own = looks(names)
    layers = sorted(_patches(effects)["layer"].unique())
    lines: list[Line] = []
    for run, rows in _runs(effects):
        for name in names:
            mine = rows[rows[line] == name].sort_values("layer")
            drawn = Line.of(mine, "layer", "effect", over=layers, name=name, look=own[name])
            if run == "other":
                look = replace(own[name], dash="dot", marker="", light=True)
                said = tuple(f"{name}, layer {layer:g}, {BASELINE}" for layer in layers)
                drawn = replace(drawn, name="", look=look, spread=None, hover=said)
            lines.append(drawn)
    along = Axis(_layers_title(_patches(effects)), integer=True)
    panel = Panel([*lines, Rule(0), Rule(1)], along, _EFFECT)
    return Figure([panel], caption, effects, _said(note, effects, f"dotted: {BASELINE}"))


# -- what is drawn --------------------------------------------------------------------------------


def _patches(effects: Any) -> Any:
    return effects[effects["run"] == "patch"]


def _runs(effects: Any) -> list[tuple[str, Any]]:
    """The rows of the patches, and those of the baseline where it was measured."""
    runs = ((run, effects[effects["run"] == run]) for run in ("patch", "other"))
    return [(run, rows) for run, rows in runs if len(rows)]


def _order(effects: Any, column: str) -> list[Any]:
    """The values of a column in the order in which the cells have them."""
    return list(_patches(effects)[column].dropna().unique())


def _said(note: str, effects: Any, baseline: str) -> str:
    return "; ".join(filter(None, (note, baseline if len(_runs(effects)) > 1 else "")))


def _layer_names(rows: Any) -> Any:
    """Layer, or window of layers, as text."""
    first = rows["layer"].map(_shown)
    if "last_layer" not in rows or _from_up(rows):
        return first
    last = rows["last_layer"].map(_shown)
    return first.where(first == last, first + "–" + last)


def _layers_title(rows: Any, *, named: bool = False) -> str:
    """The title of an axis of layers, on which marks may name the window."""
    if "last_layer" not in rows:
        return "layer"
    if _from_up(rows):
        return "patched from this layer up"
    wide = int((rows["last_layer"] - rows["layer"]).max()) + 1
    if wide == 1:
        return "layer"
    return "layers, patched together" if named else f"layer, first of {wide} patched together"


def _from_up(rows: Any) -> bool:
    """Whether each cell patches a layer and all above it."""
    return rows["last_layer"].nunique() == 1 and rows["layer"].nunique() > 1


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)

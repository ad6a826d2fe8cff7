"""Activation patching on the page."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from _experiments import Asked, Drawing, Experiment, Result, on_route

from palscope._hooks import HookedAudioModel
from palscope.measures import _grids as grids
from palscope.measures._patching import (
    activation_patching,
    check_controls,
    input_patching,
    patching_effects,
)
from palscope.pairs import control
from palscope.plots import _patching as figures

WIDTH = 3
"""Neighbouring layers that are patched together."""


GRIDS = {
    "sites × time": "sites",
    "layers × time": "layers",
    "streams × layers": "streams",
    "layers × heads": "heads",
}
LABELS_OF_GRID = {
    "sites": ["site", "place"],
    "layers": ["layer", "last_layer", "place"],
    "streams": ["layer", "last_layer", "stream"],
    "heads": ["layer", "head"],
}


def _options(model: HookedAudioModel) -> dict[str, Any]:
    one, two, three = st.columns(3)
    grid: Any = one.selectbox("Grid", list(GRIDS), key="grid", bind="query-params")
    direction = two.selectbox(
        "Direction",
        ["denoising", "noising"],
        key="direction",
        bind="query-params",
        help="Denoising puts clean values into the corrupt run: what suffices? Noising does the "
        "reverse: what is needed?",
    )
    layers = three.selectbox(
        "Layers",
        ["window", "from"],
        key="layers",
        bind="query-params",
        disabled=GRIDS[grid] not in ("layers", "streams"),
        help=f"A window of {WIDTH} layers together, or every layer from one up, which compares "
        "LAL and PLITS alike.",
    )
    return {"grid": GRIDS[grid], "direction": direction, "layers": layers}


@on_route
def _measure(asked: Asked) -> pd.DataFrame:
    pair, model = asked.pair, asked.model
    clips = pair.clean, pair.corrupt, control(pair, "other clip", seed=0).corrupt
    clean, corrupt, other = (model.inputs(pair.question, clip) for clip in clips)
    n_layers = asked.route.n_layers
    together = grids.layer_windows if asked.option("layers") == "window" else grids.layers_from
    layers = together(n_layers, WIDTH)
    places = asked.places
    cells = {
        "sites": lambda: grids.sites_by_places(places),
        "layers": lambda: grids.layers_by_places(asked.route, places, layers),
        "streams": lambda: grids.streams_by_layers(asked.route, layers),
        "heads": lambda: grids.layers_by_heads(n_layers, model.cfg.n_heads),
    }[asked.option("grid")]()
    shared: dict[str, Any] = {"answers": asked.answers, "direction": asked.option("direction")}
    inside = [cell for cell in cells if cell.labels["site"] != "waveform"]
    table = activation_patching(model, clean, corrupt, inside, other=other, **shared)
    if len(inside) < len(cells):
        outside = [cell for cell in cells if cell.labels["site"] == "waveform"]
        heard: Any = input_patching(
            model, pair.question, *clips[:2], outside, other=clips[2], **shared
        )
        table = pd.concat([table, heard[heard["run"].isin(["patch", "other"])]])
    return table.assign(pair=pair.name, kind=pair.kind)


def _draw(table: pd.DataFrame, asked: Asked) -> Result:
    grid = asked.option("grid")
    controls = check_controls(table)
    effects = patching_effects(table, LABELS_OF_GRID[grid])
    note = figures.note(effects, controls, 1, True, asked.option("direction"), "logit_diff")
    if grid == "sites":
        drawing = Drawing(
            lambda: figures.effects_by_site(effects),
            lambda: figures.effects_by_site_paper(effects, note),
            effects,
        )
    else:
        x = {"layers": "place", "streams": "stream", "heads": "head"}[grid]
        drawing = Drawing(
            lambda: figures.effect_map(effects, x),
            lambda: figures.effect_map_paper(effects, x, note),
            effects,
        )
    return Result(table, {grid: drawing}, (note,))


PATCHING = Experiment(
    "patching",
    "Values of one run are put into the other at one place after another. The effect is the share "
    "of the two runs' difference that this restores: 0 is none, 1 all of it. A patched *token* "
    "knows of sounds around it, for the encoder mixes them; `waveform` swaps the sound itself.",
    "some 10 to 60 seconds",
    _options,
    _measure,
    _draw,
    lambda asked: asked.command(
        "activation_patching",
        *("--kind", asked.pair.kind, "--grid", asked.option("grid")),
        *("--direction", asked.option("direction"), "--layers", asked.option("layers")),
    ),
)

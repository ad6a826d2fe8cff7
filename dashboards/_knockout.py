"""Attention knockout on the page."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from _experiments import Asked, Drawing, Experiment, Result, on_route

from palscope._hooks import HookedAudioModel
from palscope.measures._knockout import (
    attention_knockout,
    knockout_effects,
    sliding_windows,
    text_to_audio,
)
from palscope.plots import _knockout as figures

WINDOW = ["first_layer", "last_layer"]


def _options(model: HookedAudioModel) -> dict[str, Any]:
    one, two = st.columns(2)
    layers = model.current_route.n_layers
    width = one.select_slider(
        "Layers cut together",
        [n for n in (1, 2, 3, 5, 10) if n <= layers],
        value=min(3, layers),
        key="cut-width",
    )
    cut: Any = two.selectbox("Cut", ["all of the sound", "stretch by stretch"], key="cut")
    return {"width": width, "by stretch": cut != "all of the sound"}


@on_route
def _measure(asked: Asked) -> pd.DataFrame:
    pair, model, width = asked.pair, asked.model, asked.option("width")
    by_stretch = asked.option("by stretch")
    edges = text_to_audio(
        asked.route,
        readers=("text",) if by_stretch else ("text", "last"),
        segments=asked.places if by_stretch else None,
    )
    layers = asked.route.n_layers
    windows = [*sliding_windows(layers, width, width), range(layers)]
    inputs = model.inputs(pair.question, pair.clean)
    table = attention_knockout(model, inputs, edges, windows, answers=asked.answers)
    return table.assign(clip=pair.name, group=pair.kind)


def _draw(table: pd.DataFrame, asked: Asked) -> Result:
    if not asked.option("by stretch"):
        effects = knockout_effects(table, ["group", "queries", "pathway", *WINDOW])
        drawing = Drawing(
            lambda: figures.effect_by_depth(effects),
            lambda: figures.effect_by_depth_paper(effects),
            effects,
        )
        return Result(table, {"by depth": drawing})
    drawings: dict[str, Drawing] = {}
    whole: Any = table[table["run"] == "cut"]
    for pathway, rows in whole.groupby("pathway", sort=False):
        effects = knockout_effects(rows, ["segment", *WINDOW])
        drawings[str(pathway)] = Drawing(
            lambda effects=effects: figures.segments_by_depth(effects),
            lambda effects=effects: figures.segments_by_depth_paper(effects),
            effects,
        )
    return Result(table, drawings)


KNOCKOUT = Experiment(
    "knockout",
    "Text stops reading the sound in a window of layers that slides up the model; what is left of "
    "attention sums to 1. The effect is the change of the clean answer's log-probability. Where it "
    "is none, the sound was not needed *from there*: text that read it below carries it on.",
    "some 10 to 30 seconds",
    _options,
    _measure,
    _draw,
    lambda asked: asked.command(
        "attention_knockout",
        *("--kind", asked.pair.kind, "--width", str(asked.option("width"))),
    ),
)

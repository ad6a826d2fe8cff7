"""Gradient attribution on the page."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from _experiments import Asked, Drawing, Experiment, Result, on_route

from palscope._hooks import HookedAudioModel
from palscope.interventions import Address
from palscope.measures._attribution import attribution_patching, completeness, integrated_gradients
from palscope.plots import _attribution as figures

STEPS = 16
METHODS = {
    "attribution patching": attribution_patching,
    "integrated gradients": integrated_gradients,
}


def _options(model: HookedAudioModel) -> dict[str, Any]:
    method: Any = st.selectbox(
        "Method",
        list(METHODS),
        key="method",
        help="Attribution patching takes one gradient, at the corrupt run; integrated gradients "
        f"take {STEPS} between the two runs, and share out all of their difference.",
    )
    return {"method": method}


@on_route
def _measure(asked: Asked) -> pd.DataFrame:
    pair, model = asked.pair, asked.model
    clean, corrupt = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
    places = [Address("audio_state"), Address("mel")]
    told: dict[str, Any] = {"answers": asked.answers}
    if asked.option("method") == "integrated gradients":
        told["steps"] = STEPS
    return METHODS[asked.option("method")](model, clean, corrupt, places, **told)


def _draw(table: pd.DataFrame, asked: Asked) -> Result:
    notes: tuple[str, ...] = ()
    if asked.option("method") == "integrated gradients":
        check: Any = completeness(table)
        notes = tuple(
            f"{row.site}: attributions sum to {row.attribution:.2f}, the metric differs by "
            f"{row.difference:.2f} nats"
            for row in check.itertuples()
        )
    drawing = Drawing(
        lambda: figures.heat_map(table, asked.pair.clean),
        lambda: figures.heat_map_paper(table, asked.pair.clean),
        table,
    )
    return Result(table, {"heat map": drawing}, notes)


ATTRIBUTION = Experiment(
    "attribution",
    "Gradients say, to first order, what patching every token and every bin of the spectrogram "
    "would do: fast, and wrong where the model is far from linear. The script compares them with "
    "exact patching and reports the correlation.",
    "some 5 to 60 seconds",
    _options,
    _measure,
    _draw,
    lambda asked: asked.command("attribution", "--n", "4"),
)

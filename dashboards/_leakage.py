"""Leakage on the page."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from _experiments import Asked, Drawing, Experiment, Result, on_route

from palscope._hooks import HookedAudioModel
from palscope.measures import mean_band
from palscope.measures._leakage import DEPTH, leakage, leakage_profile, receptive_field
from palscope.plots import _leakage as figures


def _options(model: HookedAudioModel) -> dict[str, Any]:
    one, two = st.columns(2)
    places = {"first": 0, "second": 1, "third": 2}
    window: Any = one.selectbox("Changed stretch of the clean clip", list(places), key="window")
    how: Any = two.selectbox("Changed to", ["noise", "silence"], key="how")
    return {"window": places[window], "how": how}


def _window(asked: Asked) -> tuple[float, float]:
    places = list(asked.places.values())
    sound = places[min(asked.option("window"), len(places) - 1)]
    return sound.start, asked.pair.seconds if sound.end is None else sound.end


@on_route
def _measure(asked: Asked) -> pd.DataFrame:
    pair = asked.pair
    start, end = _window(asked)
    how: Any = asked.option("how")
    return leakage(asked.model, pair.clean, start, end, how=how, question=pair.question)


def _draw(table: pd.DataFrame, asked: Asked) -> Result:
    start, end = _window(asked)
    bands = mean_band(
        [leakage_profile(table)], [*DEPTH, "offset_s"], value="relative", limits=(0, None)
    )
    leaked = mean_band([receptive_field(table)], DEPTH, value="leaked")
    moved = float(table["floor_moved_db"].iloc[0])
    notes = [f"{start:.2f} to {end:.2f} s became {asked.option('how')}."]
    if abs(moved) > 0.1:
        notes.append(
            f"The clip's loudest bin moved by {moved:.1f} dB, and with it the floor of the whole "
            "spectrogram: not all of this is the encoder's spread."
        )
    drawings = {
        "over time": Drawing(
            lambda: figures.leakage_over_time(bands, end - start),
            lambda: figures.leakage_over_time_paper(bands, end - start),
            bands,
        ),
        "by depth": Drawing(
            lambda: figures.leaked_by_depth(leaked),
            lambda: figures.leaked_by_depth_paper(leaked),
            leaked,
        ),
    }
    return Result(table, drawings, tuple(notes))


LEAKAGE = Experiment(
    "leakage",
    "One stretch of the *waveform* is changed, and every token says how far it moves: the "
    "receptive field that patching a token silently has.",
    "a second",
    _options,
    _measure,
    _draw,
    lambda asked: asked.command("leakage"),
)

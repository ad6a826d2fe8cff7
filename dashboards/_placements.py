"""Injection depth and audio queries on the page: the loaded checkpoint, rerouted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st
from _experiments import Asked, Drawing, Experiment, Result
from _models import serves
from _sides import SIDES, with_roles

from palscope._routing import Route
from palscope._routing.depths import NO_AUDIO, Placement, rerouted_depths, rerouted_queries
from palscope.errors import PalscopeError
from palscope.interventions._cells import with_encoded
from palscope.measures._choices import placed_choices
from palscope.plots import _choices as figures
from palscope.plots._depth import LABELS

Find = Callable[[Route], list[Placement]]


def _served(asked: Asked, find: Find) -> list[Placement]:
    """The placements that the checkpoint has weights for; one may stand in several families."""
    return [each for each in find(asked.route) if serves(asked.model, each.route)]


def _measuring(find: Find) -> Callable[[Asked], pd.DataFrame]:
    def measure(asked: Asked) -> pd.DataFrame:
        model, question = asked.model, asked.pair.question
        placements = _served(asked, find)
        if all(each.name == NO_AUDIO for each in placements):
            raise PalscopeError(
                f"{asked.opened.name} has no weights for any of these routes; LAL, for one, has no "
                "input projector, so no sound that it could carry upwards. Choose PLITS or PAL."
            )
        bar = st.progress(0.0, "rerouting …")
        parts: list[pd.DataFrame] = []
        for side, clip in zip(SIDES, (asked.pair.clean, asked.pair.corrupt), strict=True):
            inputs = with_encoded(model, model.inputs(question, clip))
            for placement in placements:
                done = len(parts) / (len(SIDES) * len(placements))
                bar.progress(done, f"{side} clip: {placement.name}")
                table = placed_choices(model, inputs, asked.candidates, [placement])
                parts.append(table.assign(side=side, own=placement.route == asked.route))
        bar.empty()
        return pd.concat(parts, ignore_index=True)

    return measure


def _by_depth(table: Any) -> pd.DataFrame:
    """A panel a sweep. Windows are as wide as each other: they differ in where they begin."""
    windows = table["family"].str.contains("window")
    return table.assign(
        panel=table["family"],
        x=table["layers"].where(~windows, table["first_layer"]),
        axis=windows.map({True: LABELS["first_layer"], False: LABELS["layers"]}),
    )


def _by_level(table: Any) -> pd.DataFrame:
    """A panel for each number of layers; in it the levels."""
    silent = table["family"] == NO_AUDIO
    parts = table["family"].str.split(": ")
    return table.assign(
        panel=("in layers " + table["placement"].str.split().str[-1]).where(~silent, NO_AUDIO),
        x=parts.str[-1],
        axis="level of the " + parts.str[0],
    )


def _drawing(find: Find, place: Callable[[Any], pd.DataFrame]) -> Callable[..., Result]:
    def draw(table: pd.DataFrame, asked: Asked) -> Result:
        shown = place(with_roles(table, asked.pair))
        drawing = Drawing(
            lambda: figures.choices_against(shown),
            lambda: figures.choices_against_paper(shown),
            shown,
        )
        left = len(find(asked.route)) - len(_served(asked, find))
        notes = ["A star is the route that this page is on."]
        if left:
            notes.append(f"{left} route(s) left out: {asked.opened.name} has no weights for them.")
        return Result(table, {"answers": drawing}, tuple(notes))

    return draw


DEPTH = Experiment(
    "injection depth",
    "The checkpoint as it is, its sound let into other layers: LAL in the first, from a layer "
    "upwards, or in a window; PAL with less of LAL, without the summary, or with the summary from "
    "a layer upwards; PLITS frozen from a layer upwards. Both clips are asked, so that an answer "
    "that wins whatever is heard shows. Accuracy and cost over many clips are the script's.",
    "some 10 to 60 seconds",
    lambda model: {},
    _measuring(rerouted_depths),
    _drawing(rerouted_depths, _by_depth),
    lambda asked: asked.command("injection_depth"),
)

QUERIES = Experiment(
    "audio queries",
    "The sound that the checkpoint carries upwards (PLITS: the frames; PAL: the summary) at three "
    "levels: `full` tokens attend and pass the feed-forward network, `queries` attend alone, "
    "`keys` are only read. The weights were trained for `full`.",
    "some 5 to 20 seconds",
    lambda model: {},
    _measuring(rerouted_queries),
    _drawing(rerouted_queries, _by_level),
    lambda asked: asked.command("audio_queries"),
)

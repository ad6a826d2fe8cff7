"""What an experiment of the page is: a measure of the package on one pair, with its figures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from _models import OpenModel
from _pairs import ChosenPair
from matplotlib.figure import Figure

from palscope._hooks import HookedAudioModel
from palscope._routing import Route, route_to_text
from palscope.datasets._questions import LABELS
from palscope.interventions import Sound
from palscope.measures import _grids as grids
from palscope.measures._metrics import Answers
from palscope.pairs import Pair


@dataclass(frozen=True)
class Asked:
    """A pair, a model on a route, and the experiment's options."""

    opened: OpenModel
    route: Route
    chosen: ChosenPair
    options: tuple[tuple[str, Any], ...]

    @property
    def pair(self) -> Pair:
        return self.chosen.pair

    @property
    def model(self) -> HookedAudioModel:
        return self.opened.model

    @property
    def answers(self) -> Answers:
        """The token that decides between the pair's answers."""
        pair = self.pair
        return Answers.of(self.model.processor, pair.clean_answer, pair.corrupt_answer)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The labels of the demo's domain that has both answers; of other pairs, those two."""
        pair = self.pair
        both = tuple(each for each in (pair.clean_answer, pair.corrupt_answer) if each is not None)
        return next((labels for labels in LABELS.values() if set(both) <= set(labels)), both)

    @property
    def places(self) -> dict[str, Sound]:
        """The pair's segments, or a sound of one segment in quarters."""
        if len(self.pair.segments) > 1:
            return {each.name: Sound(each.start, each.end) for each in self.pair.segments}
        return grids.steps(self.pair.seconds, self.pair.seconds / 4)

    def option(self, name: str) -> Any:
        return dict(self.options)[name]

    def command(self, script: str, *arguments: str) -> str:
        """The command that does the same over many pairs or clips."""
        words = ["python", f"analyses/{script}.py", "--model", self.opened.name, *arguments]
        if self.route != self.opened.route:
            words += ["--route", route_to_text(self.route)]
        return shlex.join([*words, "--out", f"runs/{script}"])


@dataclass(frozen=True)
class Drawing:
    """A figure for the screen and its counterpart for print, and what is drawn."""

    screen: Callable[[], go.Figure]
    paper: Callable[[], Figure]
    data: pd.DataFrame


@dataclass(frozen=True)
class Result:
    table: pd.DataFrame
    figures: Mapping[str, Drawing]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """What an experiment is called and says, what it asks, and how it runs.

    `measure` is called outside of any block of the model's, and may draw how far it is.
    """

    name: str
    about: str
    cost: str
    options: Callable[[HookedAudioModel], dict[str, Any]]
    measure: Callable[[Asked], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Asked], Result]
    command: Callable[[Asked], str]

    def result(self, asked: Asked) -> Result:
        """The measured table, remembered for all visitors, drawn."""
        route = route_to_text(asked.route)
        box = _box(self.name, asked.opened.version, route, asked.chosen.digest, asked.options)
        if not box:
            with st.spinner("Running: it takes some seconds on two cores …"):
                box.append(self.measure(asked))
        return self.draw(box[0].copy(), asked)


def on_route(measure: Callable[[Asked], pd.DataFrame]) -> Callable[[Asked], pd.DataFrame]:
    """The model is this visitor's alone while it measures, on the route that is asked about."""

    def held(asked: Asked) -> pd.DataFrame:
        with asked.model.route(asked.route):
            return measure(asked)

    return held


@st.cache_resource(max_entries=64, show_spinner=False)
def _box(*key: Any) -> list[pd.DataFrame]:
    """A place for one table: filled outside, because cached code cannot show how far it is."""
    return []

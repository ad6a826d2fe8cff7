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

from palscope.hooks import HookedAudioModel
from palscope.interventions import Sound
from palscope.measures import grids
from palscope.measures.metrics import Answers
from palscope.pairs import Pair
from palscope.routing import Route, route_to_text


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
    """What an experiment is called and says, what it asks, and how it runs."""

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
        key = (self.name, asked.opened.version, route, asked.chosen.digest, asked.options)
        return self.draw(_measured(key, self, asked), asked)


@st.cache_data(max_entries=64, show_spinner="Running: it takes some seconds on two cores …")
def _measured(key: tuple[Any, ...], _experiment: Experiment, _asked: Asked) -> pd.DataFrame:
    with _asked.opened.lock, _asked.model.route(_asked.route):
        return _experiment.measure(_asked)

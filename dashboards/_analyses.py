"""The page as a host of analyses: widgets of their options, results that are remembered."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from _models import OpenModel
from _pairs import ChosenPair

from palscope._beside import words_for
from palscope._routing import Route, route_to_text
from palscope._sweeps.memory import Memory
from palscope.analyses import Analysis, Results
from palscope.analyses._items import sides
from palscope.analyses._measured import measured
from palscope.analyses._options import Setting, command_words, options_of, settings_of


@dataclass(frozen=True)
class AnalysisRequest:
    """A pair, a model on a route, and an analysis with its options.

    `script` is the analysis's name; of one of the visitor's own its file.
    """

    script: str
    analysis: Analysis[Any, Any]
    opened: OpenModel
    route: Route
    chosen: ChosenPair
    given: tuple[tuple[str, Any], ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Stands for all that the tables depend on."""
        route = route_to_text(self.route)
        return self.script, self.opened.version, route, self.chosen.digest, self.given

    @property
    def options(self) -> Any:
        """The analysis's own dataclass, of what the widgets hold, and of model, route and pair."""
        values: dict[str, Any] = {**dict(self.given), "model": self.opened.name}
        if self.route != self.opened.route:
            values["route"] = route_to_text(self.route)
        return options_of(self.analysis.options, values | self.chosen.options)

    @property
    def items(self) -> Sequence[Any]:
        """What is measured: the pair, its clean clip, or both of its clips."""
        pair, takes = self.chosen.pair, self.analysis.takes
        items: list[Any] = [pair] if takes == "pair" else sides(pair, corrupt=takes == "both")
        return [self.analysis.prepare(self.options, item) for item in items]

    @property
    def command(self) -> str:
        """The command that gives the same tables."""
        out = f"runs/{self.analysis.name}"
        return shlex.join([*words_for(self.script), *command_words(self.options), "--out", out])

    def results(self) -> Results[Any, Any]:
        """The tables, measured once for all visitors."""
        box = _box(*self.key)
        if not box:
            with st.spinner("Running: it takes some seconds on two cores …"):
                name = Path(self.opened.name).name
                asked = self.analysis, name, self.options, self.opened.model, self.route
                box.append(measured(*asked, self.items, Memory()))
        return box[0]


@st.cache_resource(max_entries=64, show_spinner=False)
def _box(*key: Any) -> list[Results[Any, Any]]:
    """A place for results: filled outside, because cached code cannot show how far it is."""
    return []


def widgets(analysis: Analysis[Any, Any]) -> tuple[tuple[str, Any], ...]:
    """A widget for each option that the page offers, and what they hold."""
    shown = [each for each in settings_of(analysis.options).values() if each.page]
    values: dict[str, Any] = {each.name: each.default for each in shown} | dict(analysis.on_page)
    if not shown:
        return ()
    columns = st.columns(min(4, len(shown)))
    for number, setting in enumerate(shown):
        with columns[number % len(columns)]:
            key = f"{analysis.name}-{setting.name}"
            off = not setting.applies(values)
            values[setting.name] = _widget(setting, values[setting.name], key, off)
    return tuple(
        (each.name, tuple(values[each.name]) if each.several else values[each.name])
        for each in shown
        if each.applies(values)
    )


def _widget(setting: Setting, value: Any, key: str, off: bool) -> Any:
    label = setting.name.removesuffix(f"_{setting.unit}").replace("_", " ")
    label += f" ({setting.unit})" if setting.unit else ""
    shared: dict[str, Any] = {
        "key": key,
        "help": setting.help,
        "disabled": off,
        "bind": "query-params",
    }
    if setting.kind is bool:
        return st.checkbox(label, value=value, **shared)
    if setting.choices and setting.several:
        return st.multiselect(label, setting.choices, default=value, **shared)
    if setting.choices:
        return st.selectbox(label, setting.choices, index=setting.choices.index(value), **shared)
    if setting.kind in (int, float):
        least = None if setting.least is None else setting.kind(setting.least)
        step = 1 if setting.kind is int else 0.1
        return st.number_input(label, value=value, min_value=least, step=step, **shared)
    return st.text_input(label, value=value, **shared)

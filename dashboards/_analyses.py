"""The page as a host of analyses: widgets of their options, results that are remembered."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from _duration import Pace, pace, told_while_running
from _given import pick, tell_dropped, typed
from _models import OpenModel
from _pairs import ChosenPair

from palscope._beside import words_for
from palscope._routing import Route, route_to_text
from palscope._sweeps.memory import Memory
from palscope.analyses import Analysis, Results, Work
from palscope.analyses._items import sides
from palscope.analyses._measured import measured
from palscope.analyses._options import Setting, command_words, options_of, settings_of
from palscope.errors import PalscopeError

TEXT_CHARACTERS = 200
"""Of an option that is a text."""


@dataclass(frozen=True)
class AnalysisRequest:
    """A pair, a model on a route, and an analysis with its options.

    `script` is the analysis's name; of one of the visitor's own its file. `pass_s` is how long the
    model took for one of the pair's clips.
    """

    script: str
    analysis: Analysis[Any, Any]
    opened: OpenModel
    route: Route
    chosen: ChosenPair
    given: tuple[tuple[str, Any], ...]
    pass_s: float

    @property
    def key(self) -> tuple[Any, ...]:
        """Stands for all that the tables depend on."""
        route = route_to_text(self.route)
        return self.script, self.opened.version, route, self.chosen.digest, self.given

    @property
    def written(self) -> str:
        """As the address names its results: the same wherever model, pair and options are."""
        route = route_to_text(self.route)
        told = self.script, self.opened.name, route, self.chosen.digest, self.given
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

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

    @property
    def seconds(self) -> float | None:
        """How long it should take from its beginning; None where nobody knows."""
        passes = self.passes
        return None if passes is None else passes * self.pass_s * self._pace.factor

    @property
    def passes(self) -> float | None:
        """How many it takes, about; None where nobody knows."""
        count, done = self.analysis.passes, _done(*self.key)
        if count is None:
            return None
        if done.passes is None:
            work = Work(self.opened.model, self.route, self.options, _no_rows, _no_rows)
            try:
                with self.opened.model.route(self.route):
                    done.passes = sum(count(work, item) for item in self.items)
            except PalscopeError:  # which the run itself will tell
                done.passes = 0.0
        return done.passes or None

    @property
    def _pace(self) -> Pace:
        return pace(self.script, self.opened.version)

    def results(self) -> Results[Any, Any]:
        """The tables, measured once for all visitors; what was stopped goes on where it was."""
        done = _done(*self.key)
        if done.results is None:
            whole, began = not len(done.tables), time.monotonic()
            with told_while_running(self.seconds):
                name = Path(self.opened.name).name
                asked = self.analysis, name, self.options, self.opened.model, self.route
                done.results = measured(*asked, self.items, done.tables)
            if whole and done.passes:
                self._pace.factor = (time.monotonic() - began) / (done.passes * self.pass_s)
        return done.results

    @property
    def measured(self) -> bool:
        """Whether all of it is."""
        return _done(*self.key).results is not None

    @property
    def unfinished(self) -> str:
        """What a run that was stopped has measured, and what not; empty of all or nothing."""
        if self.measured:
            return ""
        kept = _done(*self.key).tables
        tables = [each for each in self.analysis.tables if each.when(self.options)]
        parts = [(table.name, item.name) for table in tables for item in self.items]
        left = [part for part in parts if part not in kept]
        if left == parts:
            return ""
        named = ", ".join(f"{table} of {item}" for table, item in left)
        whole = f"{len(parts) - len(left)} of {len(parts)} parts"
        return f"Stopped: {whole} are kept; *Run* goes on with {named}."


def _no_rows(table: str, item: str = "the run") -> Any:
    raise PalscopeError(f"{item} has no rows of {table} yet: its passes cannot be counted by them.")


@dataclass
class Done:
    """What of a request is measured, and its results once all is.

    `passes` is how many it takes, 0 where that cannot be said.
    """

    tables: Memory
    results: Results[Any, Any] | None = None
    passes: float | None = None


@st.cache_resource(max_entries=64, show_spinner=False)
def _done(*key: Any) -> Done:
    """A place for results: filled outside, because cached code cannot show how far it is."""
    return Done(Memory())


def widgets(analysis: Analysis[Any, Any]) -> tuple[tuple[str, Any], ...] | None:
    """A widget for each option that the page offers, and what they hold.

    None where the address asks for what an option cannot be.
    """
    shown = [each for each in settings_of(analysis.options).values() if each.page]
    values: dict[str, Any] = {each.name: each.default for each in shown} | dict(analysis.on_page)
    if not shown:
        return ()
    columns, refused = st.columns(min(4, len(shown))), False
    for number, setting in enumerate(shown):
        with columns[number % len(columns)]:
            key = f"{analysis.name}-{setting.name}"
            off = not setting.applies(values)
            default = values[setting.name]
            values[setting.name] = _widget(setting, default, key, off)
            refused |= values[setting.name] is None and default is not None
    if refused:
        return None
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
    }
    if setting.choices:
        chosen = {"default": value} if setting.several else {"index": setting.choices.index(value)}
        widget = st.multiselect if setting.several else st.selectbox
        return pick(widget, label, setting.choices, what=label, **chosen, **shared)
    shared["bind"] = "query-params"
    if setting.kind in (bool, int, float):
        asked = None if key in st.session_state else st.query_params.get(key)  # of a link
        held = _number(setting, label, value, shared)
        tell_dropped(key, label, asked, held)
        return held
    held = typed(label, most=TEXT_CHARACTERS, value=value, **shared)
    return held if held or value is not None else None


def _number(setting: Setting, label: str, value: Any, shared: dict[str, Any]) -> Any:
    if setting.kind is bool:
        return st.checkbox(label, value=value, **shared)
    least = None if setting.least is None else setting.kind(setting.least)
    step = 1 if setting.kind is int else 0.1
    return st.number_input(label, value=value, min_value=least, step=step, **shared)

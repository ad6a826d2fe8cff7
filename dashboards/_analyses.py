"""The page as a host of analyses: widgets of their options, results that are remembered."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from _models import OpenModel
from _pairs import ChosenPair

from palscope._beside import words_for
from palscope._routing import Route, route_to_text
from palscope.analyses import Analysis, Results, Work
from palscope.analyses._items import sides
from palscope.analyses._options import Setting, command_words, options_of, settings_of
from palscope.errors import PalscopeError


@dataclass(frozen=True)
class AnalysisRequest:
    """A pair, a model on a route, and an analysis with its options."""

    analysis: Analysis[Any, Any]
    opened: OpenModel
    route: Route
    chosen: ChosenPair
    given: tuple[tuple[str, Any], ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Stands for all that the tables depend on."""
        route = route_to_text(self.route)
        return self.analysis.name, self.opened.version, route, self.chosen.digest, self.given

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
        script = words_for(self.analysis.name)
        return shlex.join(
            [*script, *command_words(self.options), "--out", f"runs/{self.analysis.name}"]
        )

    def results(self) -> Results[Any, Any]:
        """The tables, measured once for all visitors."""
        box = _box(*self.key)
        if not box:
            with st.spinner("Running: it takes some seconds on two cores …"):
                box.append(self._measured())
        return box[0]

    def _measured(self) -> Results[Any, Any]:
        """The model is this visitor's alone while it measures."""
        analysis, model, options, items = self.analysis, self.opened.model, self.options, self.items
        tables: dict[str, dict[str, pd.DataFrame]] = {}
        left_out: dict[str, str] = {}
        work = Work(model, self.route, options, lambda table, name: tables[table][name].copy())
        for table in analysis.tables:
            if not table.when(options):
                continue
            tables[table.name] = {}
            for item in items:
                try:
                    with nullcontext() if analysis.reroutes else model.route(self.route):
                        (rows,) = table.measure(work, [item])
                except PalscopeError as error:
                    left_out[item.name] = str(error)
                    continue
                if analysis.item not in rows:
                    rows.insert(0, analysis.item, item.name)
                tables[table.name][item.name] = rows
            items = [item for item in items if item.name in tables[table.name]]
            if not items:
                raise PalscopeError("; ".join(dict.fromkeys(left_out.values())))
        stored: dict[str, Mapping[str, Callable[[], pd.DataFrame]]] = {
            table: {name: rows.copy for name, rows in by_item.items()}
            for table, by_item in tables.items()
        }
        route = "" if self.route == self.opened.route else route_to_text(self.route)
        called = Path(self.opened.name).name
        return Results(options, called, route, items, f"{analysis.item}s", stored, left_out)


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

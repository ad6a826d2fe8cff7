"""What both hosts do alike, into either store, of a model that says when it is rerouted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from palscope._routing import Route, route_to_text
from palscope._sweeps.memory import Memory
from palscope._sweeps.store import Run
from palscope.analyses import Analysis, AskedClip, ClipOptions, Results, Table, each
from palscope.analyses._measured import Store, measured
from palscope.errors import AudioError

ROUTE = Route.lal(2)


@dataclass
class Model:
    """Which routes it was on, one after the other; None where it was free."""

    routes: list[Route | None] = field(default_factory=lambda: [None])
    processor: Any = field(default_factory=lambda: SimpleNamespace(takes_questions=True))

    @contextmanager
    def route(self, route: Route) -> Iterator[Route]:
        assert self.routes[-1] is None
        self.routes.append(route)
        try:
            yield route
        finally:
            self.routes.append(None)


@each
def first(work: Any, clip: AskedClip) -> pd.DataFrame:
    if clip.name == "mute":
        raise AudioError("mute is silent.")
    return pd.DataFrame({"route": [str(work.model.routes[-1])], "asked": [str(work.route)]})


@each
def second(work: Any, clip: AskedClip) -> pd.DataFrame:
    if clip.name == "short":
        raise AudioError("short is too short.")
    assert work.whole("first")["clip"].tolist() == ["a", "short", "b"], "all that were measured"
    return work.rows("first", clip.name)[["asked"]]


@each
def never(work: Any, clip: AskedClip) -> pd.DataFrame:
    pytest.fail("these options do not ask for it")


ANALYSIS = Analysis(
    name="own",
    title="own",
    about="",
    options=ClipOptions,
    items=lambda options: [],
    tables=[
        Table("first", first, ()),
        Table("never", never, (), lambda options: False),
        Table("second", second, ()),
    ],
    figures=lambda results: {},
)
CLIPS = [AskedClip(name, "all", "what?", Path(name)) for name in ("a", "mute", "short", "b")]


@pytest.fixture(params=["stored", "in memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Memory() if request.param == "in memory" else Run.open(tmp_path, {}, resume=False)


def results_of(store: Store, model: Any, analysis: Any = ANALYSIS, **options: Any) -> Results:
    told = ClipOptions(model="some/model", **options)
    return measured(analysis, "model", told, model, ROUTE, CLIPS, store)


def test_an_item_is_left_out_of_what_follows_with_its_reason(store: Store) -> None:
    results = results_of(store, Model())
    assert results.left_out == {"mute": "mute is silent.", "short": "short is too short."}
    assert [clip.name for clip in results.items] == ["a", "b"]
    assert list(results.stored) == ["first", "second"]
    assert results.rows("second")["clip"].tolist() == ["a", "b"]
    assert set(results.rows("second")["asked"]) == {str(ROUTE)}


def test_what_was_stopped_goes_on_where_it_was() -> None:
    store, model, seen = Memory(), Model(), list[str]()

    def stopping(work: Any, items: Any) -> Any:
        seen.append(items[0].name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return first(work, items)

    tables = [Table("first", stopping, ()), ANALYSIS.tables[2]]
    with pytest.raises(KeyboardInterrupt):
        results_of(store, model, replace(ANALYSIS, tables=tables))
    assert len(store) == 1
    results = results_of(store, model, replace(ANALYSIS, tables=tables))
    assert seen == ["a", "mute", "short", "mute", "short", "b"]
    again = results_of(Memory(), Model())
    assert results.left_out == again.left_out
    assert results.rows("first").equals(again.rows("first"))


def test_the_model_is_free_between_two_items(store: Store) -> None:
    model = Model()
    results = results_of(store, model)
    assert set(results.rows("first")["route"]) == {str(ROUTE)}
    assert model.routes == [None, *[ROUTE, None] * (4 + 3)]  # four clips, then three


def test_what_reroutes_gets_the_model_as_it_is(store: Store) -> None:
    model = Model()
    results = results_of(store, model, replace(ANALYSIS, reroutes=True))
    assert model.routes == [None]
    assert set(results.rows("first")["route"]) == {"None"}


def test_a_route_is_named_where_it_was_asked_for(store: Store) -> None:
    assert results_of(store, Model()).route == ""
    named = results_of(store, Model(), route=route_to_text(ROUTE))
    assert named.route == route_to_text(ROUTE)


def test_what_is_derived_is_made_once_of_each_results() -> None:
    results = results_of(Memory(), Model())
    made: list[int] = []

    def names(of: Results) -> list[str]:
        made.append(len(of.items))
        return [clip.name for clip in of.items]

    assert results.derived(names) is results.derived(names)
    assert replace(results, items=results.items[:1]).derived(names) == ["a"]
    assert made == [2, 1]

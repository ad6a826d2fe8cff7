"""Routes as plain data: the paper's integrations, changes, refusals, JSON and back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given

from palscope._routing import (
    ABSENT,
    ATTEND,
    FRAMES,
    FULL,
    KEYS,
    PROJECTED,
    SUMMARY,
    Level,
    Route,
    RouteCell,
    Source,
    Stream,
)
from palscope.errors import RouteError
from tests.routing.strategies import routes


def symbols(route: Route, stream: str = "frames") -> str:
    return "".join(cell.symbol for cell in route.cells(stream))


def test_the_papers_integrations() -> None:
    assert symbols(Route.plits(6)) == "FFFFFF"
    assert symbols(Route.lal(6)) == "PPPPPP"
    assert symbols(Route.lal(6, [1, 4])) == ".P..P."
    pal = Route.pal(6)
    assert symbols(pal) == "PP...." and symbols(pal, "summary") == "FFFFFF"
    assert SUMMARY.ratio == 3
    # A third of the layers, and never none.
    assert [len(Route.pal(n).layers("frames")) for n in (1, 2, 3, 16, 28, 30)] == [
        1,
        1,
        1,
        5,
        9,
        10,
    ]


def test_the_ablations() -> None:
    assert symbols(Route.plits(5).frozen_from(2)) == "FFkkk"
    assert symbols(Route.plits(5).frozen_from(0)) == "kkkkk"
    assert symbols(Route.lal(5, [1, 3]).with_audio_queries()) == ".a.a."
    assert symbols(Route.plits(5).mute("frames", [1, 2])) == "F..FF"
    assert symbols(Route.plits(5).mute("frames")) == "....."
    assert symbols(Route.lal(5).keep("frames", [0, 4])) == "P...P"
    assert symbols(Route.plits(5).mute("frames", [3]).frozen_from(2)) == "FFk.k"
    pal = Route.pal(5).mute("frames")
    assert symbols(pal) == "....." and symbols(pal, "summary") == "FFFFF"


def test_a_changed_route_is_another_object_and_the_old_one_stays() -> None:
    route = Route.plits(3)
    assert route.mute("frames") != route == Route.plits(3)
    with pytest.raises(FrozenInstanceError):
        route.n_layers = 4
    with pytest.raises(FrozenInstanceError):
        FULL.level = Level.ABSENT


@given(route=routes())
def test_json_gives_the_same_route_back(route: Route) -> None:
    back = Route.from_dict(json.loads(json.dumps(route.to_dict())))
    assert back == route and hash(back) == hash(route)
    assert str(back) == str(route)
    assert back._repr_html_().count("<td") == 8


@given(route=routes())
def test_reading_agrees_with_the_table(route: Route) -> None:
    for stream, cells in route.rows:
        for layer, cell in enumerate(cells):
            assert route.cell(stream.name, layer) == cell
            assert (stream.name in route.streams_at(layer, cell.level)) is True
            assert (layer in route.layers(stream.name)) is (cell.level is not Level.ABSENT)
            assert (layer in route.layers(stream.name, Level.KEYS)) is (cell.level is Level.KEYS)


def test_rows_given_as_lists_are_the_same_route() -> None:
    lists: Any = [[FRAMES, [FULL, ABSENT]]]
    route = Route(2, lists)
    assert route == Route(2, ((FRAMES, (FULL, ABSENT)),))
    assert hash(route) == hash(Route(2, ((FRAMES, (FULL, ABSENT)),)))


def test_levels_may_be_named() -> None:
    named: Any = RouteCell("keys", "projected")
    assert named == PROJECTED and named.level is Level.KEYS and named.source is Source.PROJECTED
    assert KEYS != PROJECTED and ATTEND.level.runs and FULL.level.runs and not KEYS.level.runs


@pytest.mark.parametrize("level", [Level.ABSENT, Level.ATTEND, Level.FULL])
def test_only_keys_can_be_projected(level: Level) -> None:
    with pytest.raises(RouteError, match="cannot be projected"):
        RouteCell(level, Source.PROJECTED)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Route.plits(0), "whole number from 1"),
        (lambda: Route.lal(4, [4]), "layer 4 is not in 0 to 3"),
        (lambda: Route.lal(4, [-1]), "layer -1 is not in 0 to 3"),
        (lambda: Route.plits(4).mute("frames", [7]), "layer 7"),
        (lambda: Route.plits(4).frozen_from(4), "layer 4"),
        (lambda: Route.plits(4).cell("frames", -1), "layer -1"),
        (lambda: Route.plits(4).mute("summary"), "no stream 'summary'; it has: frames"),
        (lambda: Route(2, ((FRAMES, (FULL,)),)), "1 cells for 2 layers"),
        (lambda: Route(1, ((FRAMES, (FULL,)), (FRAMES, (FULL,)))), "stands twice"),
        (lambda: Route(1, (), "summary"), "frame_readers"),
        (lambda: Stream("two words"), "no identifier"),
        (lambda: Stream("frames", 0), "whole number from 1"),
        (lambda: Stream("frames", 1.5), "whole number"),
    ],
)
def test_malformed_routes_are_refused(make: Any, message: str) -> None:
    with pytest.raises(RouteError, match=message):
        make()


def changed(**changes: Any) -> Any:
    data = Route.plits(2).to_dict()
    for key, value in changes.items():
        (data["streams"][0] if key in data["streams"][0] else data)[key] = value
    return data


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        changed(n_layers="two"),
        changed(n_layers=3),
        changed(n_layers=2.0),
        changed(streams="frames"),
        changed(streams=None),
        changed(frame_readers=None),
        changed(name=5),
        changed(ratio="3"),
        changed(levels=["full", "loud"]),
        changed(levels=["full"]),
        changed(sources=["carried", "stolen"]),
        changed(sources=["carried", "projected"]),
    ],
)
def test_data_that_is_no_route_is_refused(data: Any) -> None:
    with pytest.raises(RouteError):
        Route.from_dict(data)

"""The route table: what may be painted, what comes back, and whose word counts."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import tests.tiny as tiny
from palscope._connectors import ConnectorConfig, ProjectorConfig
from palscope._hooks import load
from palscope._routing import ABSENT, FRAMES, FULL, KEYS, PROJECTED, SUMMARY, Route
from palscope._routing.route import SYMBOL_COLOURS
from palscope.errors import RouteError


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under test, found as Streamlit finds it: beside the page."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "dashboards"))
    return import_module("_route_table")


class Hooked:
    """As much of a hooked model as `allowed_symbols` reads."""

    def __init__(self, route: Route, connector: ConnectorConfig | None = None) -> None:
        self.model = tiny.model(route, connector=connector)
        self.current_route = route


# -- what may be painted --------------------------------------------------------------------------


def test_only_what_the_checkpoint_has_weights_for_is_allowed(parts: Any):
    shape = ProjectorConfig(hidden=16, depth=2)
    connector = ConnectorConfig(
        frames_per_token=5,
        inputs={"summary": shape},
        layers={"frames": shape},
        projected_layers={"frames": (0, 2)},
        summary_width=12,
    )
    route = tiny.both_streams((PROJECTED, ABSENT, PROJECTED, ABSENT), FULL)
    allowed = parts.allowed_symbols(Hooked(route, connector))
    assert allowed == {"frames": [".P", ".", ".P", "."], "summary": [".kaF"] * 4}


def test_every_projector_allows_every_symbol(parts: Any):
    allowed = parts.allowed_symbols(Hooked(Route.pal(tiny.LAYERS)))
    assert allowed == {
        name: ["".join(parts.CELLS).replace("X", "")] * tiny.LAYERS
        for name in ("frames", "summary")
    }


def test_cells_are_allowed_or_not_whatever_the_others_are(parts: Any):
    hooked = Hooked(Route.pal(tiny.LAYERS), ConnectorConfig.for_route(Route.pal(tiny.LAYERS)))
    allowed = parts.allowed_symbols(hooked)
    streams = {"frames": FRAMES, "summary": SUMMARY}
    for pick in (0, -1):
        rows = tuple((name, "".join(may[pick] for may in allowed[name])) for name in streams)
        hooked.model.check_route(parts.with_rows(hooked.current_route, streams, rows))
    others = parts.with_rows(
        hooked.current_route, streams, (("frames", "...F"), ("summary", "...."))
    )
    with pytest.raises(RouteError):
        hooked.model.check_route(others)


@pytest.mark.slow
def test_the_demos_pal_projects_frames_in_its_first_third_only(parts: Any):
    allowed = parts.allowed_symbols(load("demo/pal"))
    assert allowed == {"frames": [".P"] * 10 + ["."] * 20, "summary": [".kaF"] * 30}


# -- rows -----------------------------------------------------------------------------------------


def test_rows_and_routes_turn_into_each_other(parts: Any):
    route = tiny.both_streams((PROJECTED, KEYS, FULL, FULL), FULL)
    streams = {stream.name: stream for stream in route.streams}
    rows = parts.rows_of(route, streams)
    assert rows == (("frames", "PkFF"), ("summary", "FFFF"))
    assert parts.with_rows(Route.pal(4), streams, rows) == route


def test_a_stream_that_the_route_lacks_is_shown_absent(parts: Any):
    streams = {"frames": FRAMES, "summary": SUMMARY}
    assert parts.rows_of(Route.lal(4), streams) == (("frames", "PPPP"), ("summary", "...."))


GIVEN = (("frames", "PP.."), ("summary", "FFFF"))
MAY = {"frames": [".P", ".P", ".", "."], "summary": [".kaF"] * 4}


@pytest.mark.parametrize(
    "painted",
    [{"frames": ".P..", "summary": "kaF."}, {"frames": "PP..", "summary": "FFFF"}],
)
def test_painted_rows_are_taken(parts: Any, painted: dict[str, str]):
    assert parts.checked_rows(painted, GIVEN, MAY) == tuple(painted.items())


@pytest.mark.parametrize(
    "painted",
    [
        None,
        [],
        {"frames": "PP.."},
        {"frames": "PP..", "summary": "FFF"},
        {"frames": "PP..", "summary": ["F"] * 4},
        {"frames": "PP..", "summary": "FFFX"},
        {"frames": "PPP.", "summary": "FFFF"},  # no projector there
        {"frames": "PP..", "summary": "FFFF", "other": "FFFF"},
    ],
)
def test_rows_that_no_table_sends_are_not(parts: Any, painted: Any):
    assert parts.checked_rows(painted, GIVEN, MAY) is None


def test_what_was_there_may_stay_where_it_could_not_be_painted(parts: Any):
    given = (("frames", "PPP."), ("summary", "FFFF"))
    painted = {"frames": ".PP.", "summary": "FFFF"}
    assert parts.checked_rows(painted, given, MAY) == tuple(painted.items())


# -- on a page ------------------------------------------------------------------------------------


def show_table() -> None:
    """The page of these tests; its arguments are in the session."""
    import streamlit as st
    from _route_table import route_table  # pyright: ignore[reportMissingImports]

    from palscope._routing import Route

    original = Route.pal(6)
    given = st.session_state.get("given", original)
    choices = {"frames": [".P"] * 2 + ["."] * 4, "summary": [".kaF"] * 6}
    st.session_state["got"] = route_table(given, choices, original=original, key="route")


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_function(show_table, default_timeout=600).run()


def sent(page: AppTest) -> dict[str, Any]:
    (shown,) = page.get("bidi_component")
    return json.loads(shown.proto.json)


def paint(page: AppTest, frames: str, summary: str, revision: int) -> AppTest:
    """What the browser does when a stroke ends on the table of `revision`."""
    rows = {"frames": frames, "summary": summary}
    page.session_state["route"] = {"rows": {"revision": revision, "value": rows}}
    return page.run()


def got(page: AppTest) -> Route:
    assert [e.value for e in page.exception] == []
    return page.session_state["got"]


def test_the_browser_gets_rows_choices_and_colours(page: AppTest):
    shown = sent(page)
    assert shown["rows"] == shown["original"] == {"frames": "PP....", "summary": "FFFFFF"}
    assert shown["allowed"]["frames"] == [".P", ".P", ".", ".", ".", "."]
    offered = {symbol: each for symbol, each in SYMBOL_COLOURS.items() if symbol != "X"}
    assert {s["symbol"]: s["colour"] for s in shown["symbols"]} == offered
    assert all(s["name"] and s["meaning"] for s in shown["symbols"])


def test_nothing_painted_is_the_route_itself(page: AppTest):
    assert got(page) == Route.pal(6)


def test_a_stroke_comes_back_as_a_route(page: AppTest):
    route = got(paint(page, "P.....", "FF..FF", 0))
    assert route == Route.pal(6).mute("frames", [1]).mute("summary", [2, 3])


def test_an_echo_does_not_undo_a_later_stroke(page: AppTest):
    first = got(paint(page, "P.....", "FFFFFF", 0))
    page.session_state["given"] = first  # the page keeps what it got
    later = got(paint(page, "......", "FFFFFF", 0))
    assert later == Route.pal(6).mute("frames")
    assert sent(page)["revision"] == 0


def test_a_preset_replaces_what_was_painted(page: AppTest):
    paint(page, "P.....", "FFFFFF", 0)
    preset = Route.pal(6).mute("summary")
    page.session_state["given"] = preset
    assert got(page.run()) == preset
    assert sent(page)["rows"]["summary"] == "......"
    late = got(paint(page, "......", "FFFFFF", 0))  # drawn before the browser saw the preset
    assert late == preset
    assert got(paint(page, "P.....", "......", sent(page)["revision"])) == preset.mute(
        "frames", [1]
    )


def test_back_to_the_original_after_a_stroke_that_the_page_kept(page: AppTest):
    page.session_state["given"] = got(paint(page, "P.....", "FFFFFF", 0))
    page.run()
    page.session_state["given"] = Route.pal(6)
    assert got(page.run()) == Route.pal(6)
    assert sent(page)["rows"]["frames"] == "PP...."


def test_a_table_that_was_off_the_page_shows_what_was_painted(page: AppTest):
    painted = got(paint(page, "P.....", "FFFFFF", 0))
    page.session_state["route"] = {}  # as Streamlit forgets it
    assert got(page.run()) == painted
    assert sent(page)["rows"]["frames"] == "P....."
    assert sent(page)["revision"] == 1


def test_a_preset_without_a_stream_shows_it_absent_and_it_can_be_painted(page: AppTest):
    page.session_state["given"] = Route.lal(6, [0, 1])
    assert got(page.run()) == Route.lal(6, [0, 1])
    assert sent(page)["rows"]["summary"] == "......"
    painted = got(paint(page, "PP....", "F.....", sent(page)["revision"]))
    assert painted == Route.pal(6).keep("summary", [0])


@pytest.mark.parametrize("rows", [{"revision": 0, "value": {"frames": "XX"}}, "FFF", 3])
def test_nonsense_from_a_browser_paints_nothing(page: AppTest, rows: Any):
    page.session_state["route"] = {"rows": rows}
    assert got(page.run()) == Route.pal(6)

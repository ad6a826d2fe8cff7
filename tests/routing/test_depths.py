"""Placements: each name says which layers have audio, and a checkpoint serves its own sweep."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from palscope._connectors import ConnectorConfig
from palscope._routing import ATTEND, FULL, KEYS, Route, route_to_text
from palscope._routing.depths import (
    NO_AUDIO,
    Placement,
    rerouted_depths,
    rerouted_queries,
)
from palscope.errors import RouteError
from tests import tiny

TRIO = {"lal": Route.lal, "pal": Route.pal, "plits": Route.plits}


def named_layers(name: str) -> list[int]:
    """The layers that a name like `LAL 4-11` or `PAL none, no summary` speaks of."""
    first = name.split(",")[0].split(" ")[-1]
    if first == "none":
        return []
    start, end = map(int, first.split("-"))
    return list(range(start, end + 1))


def by_name(placements: list[Placement]) -> dict[str, Placement]:
    return {each.name: each for each in placements}


def texts(placements: list[Placement]) -> dict[str, str]:
    return {each.name: route_to_text(each.route) for each in placements}


@pytest.mark.parametrize("make", TRIO.values(), ids=TRIO)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 30, 32])
def test_a_name_stands_for_one_route_and_a_route_for_one_name(
    make: Callable[[int], Route], n: int
) -> None:
    for placements in (rerouted_depths(make(n)), rerouted_queries(make(n))):
        pairs = {(each.name, each.route) for each in placements}
        assert len(pairs) == len({name for name, _ in pairs}) == len({route for _, route in pairs})
        assert len({(each.family, each.name) for each in placements}) == len(placements)


@pytest.mark.parametrize("make", TRIO.values(), ids=TRIO)
def test_the_unchanged_route_and_the_control_are_in_every_sweep(make: Any) -> None:
    for placements in (rerouted_depths(make(30)), rerouted_queries(make(30))):
        control = by_name(placements)[NO_AUDIO]
        assert control.route.streams == make(30).streams and control.layers == 0
        assert not any(control.route.layers(stream.name) for stream in control.route.streams)
    assert make(30) in [each.route for each in rerouted_depths(make(30))]


def test_lal_is_swept_from_below_from_above_and_by_a_window() -> None:
    placements = rerouted_depths(Route.lal(30))
    for each in placements[:-1]:
        layers = named_layers(each.name)
        assert each.route == Route.lal(30, layers)
        assert (each.layers, each.first_layer) == (len(layers), layers[0])
    families: dict[str, list[tuple[int, int]]] = {}
    for each in placements[:-1]:
        families.setdefault(each.family, []).append((each.first_layer, each.layers))
    assert families == {
        "LAL, first layers": [(0, 8), (0, 10), (0, 15), (0, 22), (0, 30)],
        "LAL, from a layer upwards": [
            (start, 30 - start) for start in (0, 4, 8, 10, 15, 20, 25, 28, 29)
        ],
        "LAL, window of 8": [(start, 8) for start in (0, 4, 8, 12, 16, 20, 22)],
    }


def test_pal_is_split_as_far_as_it_has_projectors_with_and_without_its_summary() -> None:
    found = texts(rerouted_depths(Route.pal(30)))
    for layers in (2, 5, 8, 10):
        lal = f"frames:P{layers}.{30 - layers}"
        assert found[f"PAL 0-{layers - 1}"] == f"{lal},summary/3:F30"
        assert found[f"PAL 0-{layers - 1}, no summary"] == f"{lal},summary/3:.30"
    assert found["PAL none"] == "frames:.30,summary/3:F30"
    for start in (4, 10, 15, 20, 25):
        late = f"frames:P10.20,summary/3:.{start}F{30 - start}"
        assert found[f"PAL 0-9, summary from {start}"] == late
    assert len(found) == 4 + 4 + 1 + 5 + 1


def test_plits_is_frozen_above_a_layer() -> None:
    placements = rerouted_depths(Route.plits(30))
    for each in placements[:-2]:
        layer = int(re.findall(r"\d+", each.name)[0])
        assert each.route == Route.plits(30).frozen_from(layer) and each.layers == layer
    assert [each.layers for each in placements] == [0, 8, 10, 15, 22, 30, 0]


def test_what_is_no_integration_is_refused() -> None:
    with pytest.raises(RouteError, match="no sweep of depth"):
        rerouted_depths(Route.plits(4).frozen_from(2))


def test_queries_are_compared_at_three_levels_on_the_stream_that_is_carried() -> None:
    for make, stream in ((Route.plits, "frames"), (Route.pal, "summary")):
        placements = rerouted_queries(make(30))
        assert len(placements) == 7
        for each in placements[:-1]:
            level = each.name.split(" ")[1]
            cell = {"full": FULL, "queries": ATTEND, "keys": KEYS}[level]
            layers = named_layers(each.name)
            expected = make(30).mute(stream).with_cell(stream, layers, cell)
            assert each.route == expected and each.layers == len(layers)
        assert {each.layers for each in placements[:-1]} == {30, 10}


@pytest.mark.parametrize("integration", TRIO)
def test_a_checkpoint_has_the_weights_for_its_own_sweep(integration: str) -> None:
    route = TRIO[integration](tiny.LAYERS)
    model = tiny.model(route, connector=ConnectorConfig.for_route(route, summary_width=12))
    for each in rerouted_depths(route):
        model.check_route(each.route)
    queries = by_name(rerouted_queries(route))
    if integration == "lal":
        with pytest.raises(RouteError, match="no input projector"):
            model.check_route(queries["frames queries 0-3"].route)
    else:
        for each in queries.values():
            model.check_route(each.route)

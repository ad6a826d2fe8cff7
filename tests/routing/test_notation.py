from __future__ import annotations

import re

import pytest
from hypothesis import given

from palscope._routing import Route, route_from_text, route_to_text
from palscope.errors import RouteError
from tests.routing.strategies import routes


@given(routes(layers=7))
def test_a_written_route_is_read_back(route: Route) -> None:
    text = route_to_text(route)
    assert route_from_text(text) == route
    assert not re.search(r"[\s;&?#'\"]", text)  # goes into an address and a shell unquoted


def test_it_reads_as_documented() -> None:
    assert route_to_text(Route.pal(30)) == "frames:P10.20,summary/3:F30"
    assert route_from_text("frames:F2k2") == Route.plits(4).frozen_from(2)
    assert route_from_text(" frames:..F,summary/3:.2F ").layers("summary") == (2,)


@pytest.mark.parametrize(
    "text",
    ["", "frames", "frames:", "frames:Z3", "frames:F3,summary:F2", "frames:F3,frames:F3",
     "3:F3", "frames/0:F3", "frames:F0", "frame_readers=text", "frames:F3,,", "frames:F99999"],
)  # fmt: skip
def test_what_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(RouteError):
        route_from_text(text)

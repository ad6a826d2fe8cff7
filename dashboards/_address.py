"""What the page's address says beside its widgets: route, seconds and interventions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import streamlit as st
from _edits import Edit, from_text, to_text
from _models import OpenModel

from palscope._routing import Route, route_from_text, route_to_text
from palscope.errors import RouteError

Seconds = tuple[float, float]


def address_route(opened: OpenModel) -> Route:
    """The route that the address names; the trained one where it names none that fits."""
    written = st.query_params.get("route")
    if not written:
        return opened.route
    try:
        route = route_from_text(written)
        opened.model.model.check_route(route)
    except RouteError as error:
        st.warning(f"The route in the address does not fit {opened.name}: {error}")
        return opened.route
    return route


def remember_route(opened: OpenModel, route: Route) -> None:
    """Write a route into the address; the trained one is what an address without a route means."""
    if route == opened.route:
        st.query_params.pop("route", None)
    else:
        st.query_params["route"] = route_to_text(route)


NOTHING = "none"
"""Stands for no seconds, where a clip has some that are selected at first."""


def address_selection(first: Seconds | None = None) -> Seconds | None:
    """The stretch of seconds in the address; `first` where it says nothing of any."""
    written = st.query_params.get("seconds", "")
    if not written:
        return first
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", written)
    if found is None or float(found[2]) <= float(found[1]):
        return None
    return float(found[1]), float(found[2])


def remember_selection(selection: Seconds | None, first: Seconds | None = None) -> None:
    """Write a stretch of seconds into the address; `first` is what an address without one means."""
    if selection == first:
        st.query_params.pop("seconds", None)
    else:
        written = NOTHING if selection is None else "-".join(map(_written, selection))
        st.query_params["seconds"] = written


def address_edits() -> list[Edit]:
    """The interventions in the address. Raises `PalscopeError` where they cannot be read."""
    return from_text(st.query_params.get("edits", ""))


def remember_edits(edits: Sequence[Edit]) -> None:
    """Write interventions into the address."""
    if edits:
        st.query_params["edits"] = to_text(edits)
    else:
        st.query_params.pop("edits", None)


def _written(seconds: float) -> str:
    """As exactly as the player tells a selection; in hundredths where that is as exact."""
    return f"{seconds:.4f}".removesuffix("00")

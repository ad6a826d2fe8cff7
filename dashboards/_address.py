"""What the page's address says of the view beside its widgets: the route and the seconds."""

from __future__ import annotations

import re

import streamlit as st
from _models import OpenModel

from palscope._routing import Route, route_from_text, route_to_text
from palscope.errors import RouteError


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


def address_selection() -> tuple[float, float] | None:
    """The stretch of seconds in the address; None where there is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", st.query_params.get("seconds", ""))
    if found is None or float(found[2]) <= float(found[1]):
        return None
    return float(found[1]), float(found[2])


def remember_selection(selection: tuple[float, float] | None) -> None:
    """Write a stretch of seconds into the address, or take it out."""
    if selection is None:
        st.query_params.pop("seconds", None)
    else:
        st.query_params["seconds"] = "-".join(map(_written, selection))


def _written(seconds: float) -> str:
    """As exactly as the player tells a selection; in hundredths where that is as exact."""
    return f"{seconds:.4f}".removesuffix("00")

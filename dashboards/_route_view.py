"""The route: what it is, known ones, and cells to paint."""

from __future__ import annotations

import streamlit as st
from _address import (
    address_route,
    remember_route,
)
from _models import OpenModel
from _presets import presets
from _route_table import allowed_symbols, route_table
from _sides import plain

from palscope._routing import Route
from palscope.audio import TimeGrid
from palscope.errors import RouteError


def choose_route(opened: OpenModel) -> Route:
    """The checkpoint's route as the visitor has changed it; kept in the address."""
    current = address_route(opened)
    changed = current != opened.route
    with st.expander("Route: which stream takes part in which layer", expanded=changed):
        describe(opened, current)
        known, symbols = possible_routes(opened.version, opened)

        def take() -> None:
            chosen = st.session_state["preset"]
            remember_route(opened, known[chosen] if chosen else opened.route)
            st.session_state["preset"] = None

        st.selectbox(
            "Take a known route",
            [*known],
            index=None,
            placeholder="as trained; choose another …",
            key="preset",
            on_change=take,
            help="Only routes that this checkpoint has weights for. Paint cells for any other.",
        )
        edited = route_table(
            current,
            symbols,
            original=opened.route,
            key=f"route {opened.version}",
        )
        if edited != opened.route:
            back = (opened, opened.route)
            st.button("Back to the trained route", on_click=remember_route, args=back)
    if edited != current:
        try:
            opened.model.model.check_route(edited)
        except RouteError as error:
            st.warning(str(error))
            return current
        remember_route(opened, edited)
        st.rerun()  # so that the table is given what it holds, and a later change is seen as one
    return edited


@st.cache_resource(max_entries=8, show_spinner=False)
def possible_routes(
    version: str, _opened: OpenModel
) -> tuple[dict[str, Route], dict[str, list[str]]]:
    """Known routes by name, and the symbols of every cell, that a checkpoint has weights for."""
    return presets(_opened.model, _opened.route), allowed_symbols(_opened.model)


def describe(opened: OpenModel, route: Route) -> None:
    """What the model is, in a line."""
    grid = opened.model.model.frame_grid
    streams = ", ".join(
        f"**{stream.name}** ({_pace(grid, stream.ratio)})" for stream in opened.route.streams
    )
    changed = "" if route == opened.route else " Its route is changed."
    st.markdown(f"**{plain(opened.name)}** hears {streams}.{changed}")


def _pace(grid: TimeGrid, ratio: int) -> str:
    """How often a stream that pools `ratio` tokens of this grid has one."""
    if grid.whole_clip:
        return f"{-(-grid.per_step // ratio)} for the whole clip"
    return f"a token every {grid.seconds_per_step * ratio / grid.per_step:g} s"

"""What the page's address says beside its widgets: route, seconds and interventions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import streamlit as st
from _edits import AnyEdit, from_text, to_text
from _given import note_here, once_here, say, short
from _models import OpenModel

from palscope._routing import Route, route_from_text, route_to_text
from palscope.errors import PalscopeError, RouteError

Seconds = tuple[float, float]

ROUTE_CHARACTERS = 2000
EDITS_CHARACTERS = 4000


def address_route(opened: OpenModel) -> Route:
    """The route that the address names; the trained one where it names none that fits."""
    written = st.query_params.get("route")
    if not written:
        return opened.route
    if len(written) > ROUTE_CHARACTERS:
        say(f"The address's route has {len(written):,} characters, {ROUTE_CHARACTERS:,} at most.")
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


def address_selection(clip_seconds: float, first: Seconds | None = None) -> Seconds | None:
    """The stretch of seconds in the address; `first` where it says nothing of any.

    None, and a sentence, where it is none of a clip of `clip_seconds`.
    """
    written = st.query_params.get("seconds", "")
    if written in ("", NOTHING):
        return None if written else first
    found = re.fullmatch(r"(\d{1,5}(?:\.\d{1,6})?)-(\d{1,5}(?:\.\d{1,6})?)", written)
    if found is not None:
        start, end = float(found[1]), float(found[2])
        # What was selected in a clip before is the player's to leave.
        if start < end and (start < clip_seconds or once_here("seconds", written)):
            note_here("seconds", written)
            return start, end
    say(
        f"There are no seconds “{short(written)}” in this sound of {clip_seconds:.2f} s, so none "
        "are selected."
    )
    return None


def remember_selection(selection: Seconds | None, first: Seconds | None = None) -> None:
    """Write a stretch of seconds into the address; `first` is what an address without one means."""
    if selection == first:
        st.query_params.pop("seconds", None)
    else:
        written = NOTHING if selection is None else "-".join(map(_written, selection))
        st.query_params["seconds"] = written


def address_token(offsets: Sequence[int]) -> int | None:
    """The token in the address, counted from the prompt's last, which it is without one.

    None, and a sentence, where it is none of `offsets`.
    """
    written = st.query_params.get("token", "0")
    if written in map(str, offsets):
        note_here("token", written)
        return int(written)
    if once_here("token", written):
        return 0
    say(f"There is no token “{short(written)}” after this sound: choose another.")
    return None


def remember_token(offset: int) -> None:
    """Write a token into the address."""
    if offset:
        st.query_params["token"] = str(offset)
    else:
        st.query_params.pop("token", None)
    st.session_state["token written"] = offset


def token_moved() -> bool:
    """Whether the address names another token than was written: a link was opened, or Back."""
    written = st.session_state.get("token written")
    return written is not None and st.query_params.get("token", "0") != str(written)


def address_edits() -> list[AnyEdit]:
    """The interventions in the address. Raises `PalscopeError` where they cannot be read."""
    written = st.query_params.get("edits", "")
    check_edits(written)
    return from_text(written)


def check_edits(written: str) -> None:
    """Raise `PalscopeError` where interventions, as text, are longer than an address holds."""
    if len(written) > EDITS_CHARACTERS:
        raise PalscopeError(
            f"the address's edits have {len(written):,} characters, {EDITS_CHARACTERS:,} at most."
        )


def remember_edits(edits: Sequence[AnyEdit]) -> None:
    """Write interventions into the address."""
    if edits:
        st.query_params["edits"] = to_text(edits)
    else:
        st.query_params.pop("edits", None)


def address_results() -> str:
    """Which results the address names, as `AnalysisRequest.written` does; empty where none."""
    return st.query_params.get("results", "")


def remember_results(written: str) -> None:
    """Write into the address which results are shown; none where it is empty."""
    if written:
        st.query_params["results"] = written
    else:
        st.query_params.pop("results", None)


def _written(seconds: float) -> str:
    """As exactly as the player tells a selection; in hundredths where that is as exact."""
    return f"{seconds:.4f}".removesuffix("00")

"""Random routes."""

from __future__ import annotations

from hypothesis import strategies as st

from palscope._routing import (
    ABSENT,
    ATTEND,
    FRAMES,
    FULL,
    KEYS,
    PROJECTED,
    SUMMARY,
    Route,
    RouteCell,
    Stream,
)

CELLS = (ABSENT, ATTEND, FULL, KEYS, PROJECTED)


def routes(
    layers: int = 4,
    streams: tuple[Stream, ...] = (FRAMES, SUMMARY),
    cells: tuple[RouteCell, ...] = CELLS,
) -> st.SearchStrategy[Route]:
    """Routes of `layers` layers with any of `cells` for each of `streams` in each layer."""
    row = st.tuples(*[st.sampled_from(cells)] * layers)
    return st.builds(
        lambda rows, readers: Route(layers, tuple(zip(streams, rows, strict=True)), readers),
        st.tuples(*[row] * len(streams)),
        st.sampled_from(["all", "text"]),
    )

"""Routes in one word, for addresses and command lines: `frames:P10.20,summary/3:F30`."""

from __future__ import annotations

import re
from itertools import groupby

from palscope._routing.route import (
    ABSENT,
    ATTEND,
    CROSSED,
    FULL,
    KEYS,
    PROJECTED,
    Route,
    RouteCell,
    Stream,
)
from palscope.errors import RouteError

CELLS = {cell.symbol: cell for cell in (ABSENT, PROJECTED, CROSSED, KEYS, ATTEND, FULL)}
"""The cells by the symbol that they are written with."""

_ROW = re.compile(
    r"(?P<name>[^\W\d]\w*)(/(?P<ratio>[0-9]{1,4}))?:(?P<runs>([.kPXaF]([1-9][0-9]{0,3})?)+)"
)
_TEXT_READS_FRAMES = "frame_readers=text"


def route_to_text(route: Route) -> str:
    """A route in one word: stream, ratio where it is not 1, and runs of equal cells upwards.

    >>> route_to_text(Route.pal(30))
    'frames:P10.20,summary/3:F30'
    """
    rows = [
        f"{stream.name}{'' if stream.ratio == 1 else f'/{stream.ratio}'}:{_runs(cells)}"
        for stream, cells in (
            (stream, "".join(cell.symbol for cell in cells)) for stream, cells in route.rows
        )
    ]
    return ",".join(rows if route.frame_readers == "all" else [*rows, _TEXT_READS_FRAMES])


def route_from_text(text: str) -> Route:
    """The route that `route_to_text` wrote.

    Raises:
        RouteError: it is no route, or its streams differ in their number of layers.
    """
    parts = text.strip().split(",")
    readers = "text" if _TEXT_READS_FRAMES in parts else "all"
    rows = [_row(part, text) for part in parts if part != _TEXT_READS_FRAMES]
    if not rows:
        raise RouteError(f"{text!r} names no stream; a route reads like frames:P10.20.")
    cells = rows[0][1]
    if any(len(other) != len(cells) for _, other in rows):
        layers = ", ".join(f"{stream.name} {len(cells)}" for stream, cells in rows)
        raise RouteError(f"the streams of {text!r} differ in their number of layers: {layers}.")
    return Route(len(cells), tuple(rows), readers)


def _runs(symbols: str) -> str:
    counted = ((symbol, len(list(run))) for symbol, run in groupby(symbols))
    return "".join(symbol if n == 1 else f"{symbol}{n}" for symbol, n in counted)


def _row(part: str, text: str) -> tuple[Stream, tuple[RouteCell, ...]]:
    found = _ROW.fullmatch(part)
    if found is None:
        raise RouteError(
            f"{part!r} in {text!r} is no stream of a route; expected its name and its cells from "
            f"the bottom layer, e.g. frames:P10.20 (symbols: {' '.join(CELLS)})."
        )
    runs = re.findall(r"([.kPXaF])([0-9]*)", found["runs"])
    cells = tuple(CELLS[symbol] for symbol, n in runs for _ in range(int(n or 1)))
    return Stream(found["name"], int(found["ratio"] or 1)), cells

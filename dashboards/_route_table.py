"""The route as a picture that can be edited: a row a stream, a column a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from _component import component, remembered, state_of
from _models import serves

from palscope._hooks import HookedAudioModel
from palscope._routing import ABSENT, Route, Stream
from palscope._routing.notation import CELLS
from palscope._routing.route import SYMBOL_COLOURS

WORDS = {
    ".": ("absent", "the layer cannot see it"),
    "P": ("projected keys", "text reads what this layer's own projector makes of the sound (LAL)"),
    "X": ("crossed keys", "text reads the sound in an attention of its own (encoder–decoders)"),
    "k": ("carried keys", "text reads the state that the layer below left; it does not change"),
    "a": ("attend", "it also reads, but skips the feed-forward network"),
    "F": ("full", "ordinary tokens that read, are read and change (PLITS)"),
}
"""Name and meaning of each cell, by its symbol."""

SymbolRows = tuple[tuple[str, str], ...]
"""Each stream's name and its cells' symbols."""

_show = component("route_table")


def route_table(
    route: Route, choices: Mapping[str, Sequence[str]], *, original: Route, key: str
) -> Route:
    """Show a route whose cells can be painted, and return what the visitor made of it.

    Args:
        route: shown at first and whenever it changes. Giving back what this function returned is
            no change.
        choices: the symbols that each stream may have at each layer, from `allowed_symbols`. A
            stream of `original` that `route` lacks is shown absent.
        original: cells that differ from this route are marked.
        key: unique on the page.

    Returns:
        `route` itself while nothing was painted. What was painted is within `choices`; whether the
        model takes it is for `model.check_route` to say.
    """
    streams = {stream.name: stream for stream in (*original.streams, *route.streams)}
    given = rows_of(route, streams)
    allowed = [(name, list(choices.get(name, [""] * route.n_layers))) for name in streams]
    report = state_of(key, "rows")
    if report is not None:
        painted = checked_rows(report[1], given, dict(allowed))
        report = None if painted is None else (report[0], painted)
    crosses = any("X" in layer for _, layers in allowed for layer in layers)
    about = (route.n_layers, repr(allowed), rows_of(original, streams))
    shown = remembered(key, about, given, report, leftover=given)
    data = {
        "streams": list(streams),
        "rows": dict(shown.first),
        "original": dict(rows_of(original, streams)),
        "allowed": dict(allowed),
        "symbols": [
            {"symbol": symbol, "name": name, "meaning": meaning, "colour": SYMBOL_COLOURS[symbol]}
            for symbol, (name, meaning) in WORDS.items()
            if symbol == "." or (symbol == "X") == crosses
        ],
        "revision": shown.revision,
    }
    _show(key=key, data=data, on_rows_change=lambda: None)
    return route if shown.value == given else with_rows(route, streams, shown.value)


def allowed_symbols(model: HookedAudioModel) -> dict[str, list[str]]:
    """The symbols that each stream of a checkpoint may have at each layer, as the model says.

    It has weights for a cell or not, whatever the other cells are: projected keys need a projector
    of that layer, all else but absent needs the stream's input projector.
    """
    layers = model.current_route.n_layers
    streams = model.model.streams
    nothing = Route(layers, tuple((stream, (ABSENT,) * layers) for stream in streams))

    return {
        stream.name: [
            "".join(
                symbol
                for symbol, cell in CELLS.items()
                if serves(model, nothing.with_cell(stream.name, [layer], cell))
            )
            for layer in range(layers)
        ]
        for stream in nothing.streams
    }


def rows_of(route: Route, streams: Mapping[str, Stream]) -> SymbolRows:
    """The cells of `streams` as symbols; absent where the route lacks one."""
    have = {stream.name: cells for stream, cells in route.rows}
    absent = (ABSENT,) * route.n_layers
    return tuple((name, "".join(c.symbol for c in have.get(name, absent))) for name in streams)


def with_rows(route: Route, streams: Mapping[str, Stream], rows: SymbolRows) -> Route:
    """`route` with these rows instead."""
    cells = tuple((streams[name], tuple(CELLS[s] for s in symbols)) for name, symbols in rows)
    return replace(route, rows=cells)


def checked_rows(
    sent: Any, given: SymbolRows, allowed: Mapping[str, Sequence[str]]
) -> SymbolRows | None:
    """What the browser sent, as rows like `given`; None where it is no such thing.

    A cell with a symbol that it may not have is only taken where `given` has the same.
    """
    if not isinstance(sent, dict) or set(sent) != {name for name, _ in given}:
        return None
    rows = tuple((name, sent[name]) for name, _ in given)
    for (name, symbols), (_, before) in zip(rows, given, strict=True):
        if not isinstance(symbols, str) or len(symbols) != len(before):
            return None
        fits = zip(symbols, before, allowed[name], strict=True)
        if not all(symbol in may or symbol == old for symbol, old, may in fits):
            return None
    return rows

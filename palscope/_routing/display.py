"""How a token layout shows in a notebook: a strip of its columns, coloured by stream."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import cycle, groupby
from typing import TYPE_CHECKING, Any, cast

from palscope._palette import FREE, PALETTE, STREAMS

if TYPE_CHECKING:
    from palscope._routing.layout import TokenLayout

# Lets a light or a dark page through.
_PADDING = "#80808033"

_EACH_TOKEN_UP_TO = 240
"""Columns of a layout in which every token has a cell; longer ones show stretches."""
_ROWS_SHOWN = 16

_STRIP = "display:flex;height:22px;width:100%;min-width:320px"
_LABEL = "overflow:hidden;white-space:nowrap;font-size:11px;line-height:1;color:#fff;padding:0 3px"


def colours(pathways: Iterable[str]) -> dict[str, str]:
    """A colour for each pathway; "text", "frames" and "summary" have theirs wherever drawn."""
    free = iter(cycle(FREE))
    names = dict.fromkeys([*STREAMS, *pathways])
    slots = {name: name if name in STREAMS else next(free) for name in names}
    return {name: PALETTE[slot][0] for name, slot in slots.items()}


def layout_html(layout: TokenLayout) -> str:
    """Show each row of a batch as a strip, as wide as its columns are many.

    Up to 240 columns every token has a cell; in longer layouts a stretch of text is one block, and
    a clip one block a stream. Hovering tells what a cell or block holds, and its seconds.
    """
    names = list(layout.pathways)
    palette = {**colours(names), "padding": _PADDING}
    rows = layout.stream.shape[0]
    strips = [_row(layout, row, palette) for row in range(min(rows, _ROWS_SHOWN))]
    rest = f"<div>… and {rows - _ROWS_SHOWN} rows more</div>" if rows > _ROWS_SHOWN else ""
    legend = " ".join(
        f'<span style="white-space:nowrap;margin-right:12px"><span style="display:inline-block;'
        f'width:10px;height:10px;background:{palette[name]}"></span> {escape(name)}</span>'
        for name in [*names, *(["padding"] if not bool(layout.real.all()) else [])]
    )
    return f'<div style="overflow-x:auto;max-width:960px">{"".join(strips)}{rest}{legend}</div>'


def _row(layout: TokenLayout, row: int, palette: dict[str, str]) -> str:
    table: Any = layout.table(row)
    tokens = cast(list[dict[str, Any]], table.to_dict("records"))
    stretches = [
        list(run)
        for _, run in groupby(tokens, key=lambda t: t["stream"] if t["clip"] < 0 else t["clip"])
    ]
    draw = _cells if layout.width <= _EACH_TOKEN_UP_TO else _block
    caption = escape(f"row {row}: {', '.join(_described(run) for run in stretches)}")
    strip = "".join(draw(run, palette) for run in stretches)
    return (
        f'<div style="font-size:12px">{caption}</div>'
        f'<div role="img" aria-label="{caption}" style="{_STRIP};margin:2px 0 6px">{strip}</div>'
    )


def _described(run: list[dict[str, Any]]) -> str:
    """A stretch in words: "12 text", or "clip 0 (50 frames, 17 summary, 5.00 s)"."""
    counts: dict[str, int] = {}
    for token in run:
        counts[token["stream"]] = counts.get(token["stream"], 0) + 1
    listed = ", ".join(f"{count} {stream}" for stream, count in counts.items())
    if run[0]["clip"] < 0:
        return listed
    return f"clip {run[0]['clip']} ({listed}, {max(t['end_s'] for t in run):.2f} s)"


def _cells(run: list[dict[str, Any]], palette: dict[str, str]) -> str:
    """One cell a token."""
    return "".join(
        f'<span title="{escape(_title([token]))}" style="flex:1;min-width:2px;'
        f'background:{palette[token["stream"]]};box-shadow:inset -1px 0 #fff5"></span>'
        for token in run
    )


def _block(run: list[dict[str, Any]], palette: dict[str, str]) -> str:
    """One block a stretch; the streams of a clip lie above one another."""
    by_stream: dict[str, list[dict[str, Any]]] = {}
    for token in run:
        by_stream.setdefault(token["stream"], []).append(token)
    lanes = "".join(
        f'<span title="{escape(_title(tokens))}" style="flex:1;display:flex;align-items:center;'
        f'min-height:0;background:{palette[stream]};{_LABEL}">{_short(stream, tokens)}</span>'
        for stream, tokens in by_stream.items()
    )
    return (
        f'<span style="flex:{len(run)} 1 0;min-width:2px;overflow:hidden;display:flex;'
        f'flex-direction:column;border-right:1px solid #fff8">{lanes}</span>'
    )


def _short(stream: str, tokens: list[dict[str, Any]]) -> str:
    return "" if stream == "padding" else escape(f"{stream} × {len(tokens)}")


def _title(tokens: list[dict[str, Any]]) -> str:
    """What hovering tells of one token, or of all tokens of a stream in a stretch."""
    first, last = tokens[0], tokens[-1]
    many = len(tokens) > 1
    columns = _span("column", first["column"], last["column"], many)
    if first["stream"] == "padding":
        return f"padding, {columns}"
    parts = [columns, _span("position", first["position"], last["position"], many)]
    if first["clip"] >= 0:
        parts.insert(0, f"clip {first['clip']}")
        parts.append(f"{first['start_s']:.2f} to {last['end_s']:.2f} s")
    which = "" if first["clip"] < 0 or many else f" {first['token']}"
    return f"{first['stream']}{which}: {', '.join(parts)}"


def _span(word: str, first: int, last: int, many: bool) -> str:
    return f"{word}s {first} to {last}" if many else f"{word} {first}"

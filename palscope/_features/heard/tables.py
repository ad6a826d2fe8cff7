"""What is told of a unit in numbers, as pieces of HTML."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from palscope._features.heard.index import IndexedUnit

_LABELS = 10


def is_head(unit: IndexedUnit) -> bool:
    """Whether it gives attention: to every token some, so that it says nothing where it fires."""
    return unit.units.heads is not None


def histogram(unit: IndexedUnit) -> str:
    """Bars over a logarithmic axis of values."""
    table: Any = unit.histogram
    if table.empty:
        return "<p>Nowhere.</p>"
    rows = table["rows"].to_numpy()
    bars = "".join(f'<i style="height:{100 * each / rows.max():.1f}%"></i>' for each in rows)
    low, high = table["low"].iloc[0], table["high"].iloc[-1]
    ticks = "".join(f"<b>{value:.2g}</b>" for value in (low, np.sqrt(low * high), high))
    return (
        f'<div class="bars" role="img" aria-label="Histogram of its values">{bars}</div>'
        f'<div class="ticks">{ticks}</div><p><small>Tokens by the unit\'s value, on a logarithmic '
        f"axis; the highest bar is {rows.max():,} tokens."
        f"{'' if is_head(unit) else ' On all others it is silent.'}</small></p>"
    )


def labels(unit: IndexedUnit) -> str:
    """How well it tells each label, the best first."""
    every: Any = unit.labels
    table: Any = every.head(_LABELS)
    if table.empty:
        return "<p>The clips have none.</p>"
    columns: dict[str, list[str]] = {
        "label": [f"{row.domain}: {row.label}" for row in table.itertuples()],
        "clips": [f"{clips:,}" for clips in table["clips"]],
        "that fire it": [f"{share:.0%}" for share in table["fires"]],
        "average precision": [number(value) for value in table["precision"]],
        "AUROC in the domain": [number(value) for value in table["auroc"]],
    }
    note = "Average precision is among all held-out clips, AUROC among those of the same domain."
    if is_head(unit):
        del columns["that fire it"]
    if (even := _spread_evenly(unit)) is not None:
        both: Any = table.merge(even.labels, on=["domain", "label"], how="left")
        columns["AUROC, spread evenly"] = [number(score) for score in both["auroc_y"]]
        note += (
            " What a head gives to a clip, spread evenly over its tokens, tells a label by how much"
            " it listens and how long the clip is, not by where it listens."
        )
    rows = [[*row] for row in zip(*columns.values(), strict=True)]
    return f"{_table(list(columns), rows)}<p><small>{note}</small></p>"


def _spread_evenly(unit: IndexedUnit) -> IndexedUnit | None:
    """The control of a head: the same head, spread evenly."""
    kinds = unit.units.index.record["config"]["units"]
    found = [twin for name, (twin, _) in unit.twins.items() if kinds[name].get("kind") == "even"]
    return found[0] if found else None


def nearest(unit: IndexedUnit) -> str:
    """The units that are nearest to it; nothing where that is not known."""
    table: Any = unit.nearest
    if table.empty:
        return ""
    every: Any = unit.units.table
    names: list[str] = every["name"].tolist()
    head = is_head(unit)
    near = "correlation" if head else "cosine"
    found: list[int] = table["unit"].astype(int).tolist()
    cells = [
        [unit.units.called(each) if head else str(each), f"{value:.2f}", names[each] or "no name"]
        for each, value in zip(found, table[near], strict=True)
    ]
    title = "Heads that read most alike, over all tokens" if head else "Nearest directions"
    return f"<h3>{title}</h3>" + _table(["head" if head else "unit", near, "proposed name"], cells)


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        marks = ["" if number == 0 else ' class="n"' for number in range(len(cells))]
        return "".join(
            f"<{tag}{mark}>{html.escape(cell)}</{tag}>"
            for mark, cell in zip(marks, cells, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def number(value: float) -> str:
    """A dash where there is none."""
    return "–" if np.isnan(value) else f"{value:.2f}"

"""The figure of where models attend: one line a model, over relative depth and over seconds."""

from __future__ import annotations

from typing import Any

import pandas as pd

from palscope.measures._profile import DEPTH, KNOCKOUT, MASS, SECONDS
from palscope.plots._axes import SHARE_PER_SECOND, TIME
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line
from palscope.plots._looks import looks

_X = {DEPTH: Axis("relative depth (0 first layer, 1 last)"), SECONDS: TIME}
_Y = {
    (MASS, DEPTH): Axis("share of attention to sound", limits=(0, None)),
    (MASS, SECONDS): SHARE_PER_SECOND,
    (KNOCKOUT, DEPTH): Axis("KL when cut in\na fifth of the layers", "nats", limits=(0, None)),
    (KNOCKOUT, SECONDS): Axis("KL when cut in\nall layers", "nats", limits=(0, None)),
}


def profiles(bands: pd.DataFrame, *, caption: Caption) -> Figure:
    """Mass above, knockout below; depth on the left, seconds on the right.

    Args:
        bands: `profile_bands` of each model, with a column `model`.
        caption: what the figure says of its numbers.
    """
    table: Any = bands
    named = looks(table["model"])
    table = table.assign(middle=(table["start"] + table["end"]) / 2).sort_values("middle")
    panels: list[Panel] = []
    for (measure, axis), y in _Y.items():
        shown = table[(table["measure"] == measure) & (table["axis"] == axis)]
        lines = [
            Line.of(rows, "middle", name=str(model), look=named[model], hover=_spans(rows))
            for model in named
            if len(rows := shown[shown["model"] == model])
        ]
        row, column = int(measure == KNOCKOUT), int(axis == SECONDS)
        panels.append(Panel(lines, _X[axis], y, row=row, column=column))
    return Figure(panels, caption, bands)


def _spans(rows: Any) -> tuple[str, ...]:
    return tuple(f"{row.start:.2f} to {row.end:.2f}" for row in rows.itertuples())

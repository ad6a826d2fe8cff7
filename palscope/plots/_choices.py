"""Figure of candidate answers' log-probabilities under changes of one route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from palscope._routing.depths import NO_AUDIO
from palscope.plots._figure import Caption, Figure, Mark, Panel
from palscope.plots._grammar import Axis, Line, Points, Rule
from palscope.plots._looks import Look

RIGHT, OTHER, REST = "right answer", "the other clip's answer", "other candidates"
"""What a candidate is to a clip."""

WITHOUT = f"right answer, {NO_AUDIO}"
_STARS = "Stars: the model's own route."
_LOOKS = {
    REST: Look("grey", light=True),
    OTHER: Look("vermilion", "diamond"),
    RIGHT: Look("blue", "square"),
}


def choices_against(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Log-probability of each candidate: a row of panels a clip, a column a panel.

    Points are joined where `x` is a number. Stars are the two answers on the model's own route; a
    dotted line, drawn in every panel of the clip, is the right answer without audio.

    Args:
        table: one row a (clip, panel, x, choice): `clip, panel, x, choice, logprob`; `axis`, the
            title of that panel's horizontal axis; `role`, of `RIGHT, OTHER, REST`; and `own`,
            whether it is the model's own route. Rows of the panel `NO_AUDIO` are the dotted line.
        caption: of the figure.
    """
    whole: Any = table
    shown = whole[whole["panel"] != NO_AUDIO]
    along = {
        panel: _axis(rows["axis"].iloc[0], rows["x"])
        for panel, rows in shown.groupby("panel", sort=False)
    }
    panels: list[Panel] = []
    for row, (clip, rows) in enumerate(shown.groupby("clip", sort=False)):
        upwards = Axis(f"{clip}\nlog-probability", "nats")
        silent = whole[(whole["clip"] == clip) & (whole["panel"] == NO_AUDIO)]
        without = [Rule(at, WITHOUT) for at in silent.loc[silent["role"] == RIGHT, "logprob"]]
        for column, (panel, x) in enumerate(along.items()):
            marks = [*without, *_marks(rows[rows["panel"] == panel], joined=not x.categories)]
            title = "" if row else panel
            panels.append(Panel(marks, x, upwards, title, row=row, column=column))
    return Figure(panels, caption, table, _STARS if shown["own"].any() else "")


def _axis(title: str, x: Any) -> Axis:
    if pd.api.types.is_number(x.iloc[0]):
        return Axis(title, integer=True)
    return Axis(title, categories=tuple(x.unique()))


def _marks(rows: Any, *, joined: bool) -> list[Mark]:
    """A line a candidate, or points; those that matter come last, on top."""
    marks: list[Mark] = []
    for role, look in _LOOKS.items():
        mine = rows[rows["role"] == role]
        for choice, values in mine.groupby("choice", sort=False):
            if joined:
                values = values.sort_values("x")
            said = tuple(f"{choice}, {x}" for x in values["x"])
            kind = Line if joined else Points
            marks.append(
                kind(list(values["x"]), values["logprob"], 1, name=role, look=look, hover=said)
            )
        own = mine[mine["own"]]
        if role != REST and len(own):
            star = replace(look, marker="star")
            marks.append(Points(list(own["x"]), own["logprob"], 1, look=star))
    return marks

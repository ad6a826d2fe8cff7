"""Figures of heads that listen in time, and of the word times that are read from them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from palscope.plots._axes import HEAD, LAYER
from palscope.plots._cells import Heat
from palscope.plots._figure import Caption, Figure, Mark, Panel
from palscope.plots._grammar import Axis, Line, Points
from palscope.plots._looks import Look, looks


def alignment_map(table: pd.DataFrame, said: str, *, caption: Caption) -> Figure:
    """How much of what each head gives to the clip falls on the word that it predicts.

    A dot marks the heads on the checkpoint's own list.

    Args:
        table: `layer, head, listed, mean, n` and the interval of the mean, a row a head.
        said: of how well the two agree; the panel's title.
        caption: what the figure says of its numbers.
    """
    label = "share on the word's seconds"
    marks: list[Mark] = [Heat.of(table, "head", "layer", "mean", label)]
    heads: Any = table
    listed = heads[heads["listed"]]
    if len(listed):
        dots = Look("orange", light=True)
        marks.append(Points(listed["head"], listed["layer"], listed["n"], look=dots))
    return Figure([Panel(marks, HEAD, LAYER, said)], caption, table)


def onset_errors(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """The share of words whose onset is found within so many seconds, a line a rule.

    Args:
        table: a `mean_band` by `rule` and `within_s`.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    named = looks(whole["rule"])
    lines = [
        Line.of(rows, "within_s", name=str(rule), look=named[rule])
        for rule, rows in whole.groupby("rule", sort=False)
    ]
    share = Axis("share of words", limits=(0, 1.02))
    return Figure([Panel(lines, Axis("found within", "s"), share)], caption, table)

"""Figures of words that are written where nobody speaks."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from palscope.plots._cells import Heat
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Bars, Line
from palscope.plots._looks import HATCHES, Look, looks

_SHARE = Axis("share of clips", limits=(0, 1.03))
_LAYER, _HEAD = Axis("layer", integer=True), Axis("head", integer=True)
_PATHS = {"rate": "words are written", "error": "word error of speech", "lost": "speech lost"}
_STOPS = "stops before the first word"
_CHANGES = "its first word changes"


def rate_by_kind(rates: pd.DataFrame, *, caption: Caption) -> Figure:
    """Bars of the share of clips for which words are written: all, and what the rule leaves.

    Args:
        rates: a row a `kind` and `settings`, with `rate` and `left` and their intervals.
        caption: of the figure.
    """
    table = cast(Any, rates.copy())
    table["kind"] = [f"{kind}\nn {n}" for kind, n in zip(table["kind"], table["n"], strict=True)]
    kinds = Axis("", categories=tuple(table["kind"].unique()))
    own = looks(table["settings"])
    hatches = dict(zip(own, HATCHES, strict=False))
    panels: list[Panel] = []
    for row, (y, spread, title) in enumerate(
        [
            ("rate", "", "words are written"),
            ("left", "left", "and openai-whisper's rule keeps them"),
        ]
    ):
        bars = [
            Bars.of(
                mine,
                "kind",
                y,
                spread=spread,
                name=str(settings),
                look=Look(own[settings].slot, hatch=hatches[settings]),
            )
            for settings, mine in table.groupby("settings", sort=False)
        ]
        panels.append(Panel(bars, kinds, _SHARE, title, row=row))
    return Figure(panels, caption, rates)


def heads_that_stop(cuts: pd.DataFrame, *, caption: Caption) -> Figure:
    """What each head's sound decides: clips that stop without it, and speech that changes.

    Args:
        cuts: a row a `sound` ("speech" or "other"), `cut`, `layer` and `head`.
        caption: of the figure.
    """
    whole = cast(Any, cuts)
    table = whole[whole["cut"] == "head"]
    panels: list[Panel] = []
    for column, (sound, value, title) in enumerate(
        [("other", "stops", f"no speech: {_STOPS}"), ("speech", "changes", f"speech: {_CHANGES}")]
    ):
        mine = table[table["sound"] == sound]
        mine = mine.assign(share=100 * mine[value])
        heat = Heat.of(mine, "head", "layer", "share", "share of clips (%)")
        panels.append(Panel([heat], _HEAD, _LAYER, title, column=column))
    note = "A head at a time is cut off from all sound, at every token."
    return Figure(panels, caption, table, note)


def rate_against_dose(doses: pd.DataFrame, *, caption: Caption) -> Figure:
    """The share of clips that words are written for, and the damage on speech, by dose.

    Args:
        doses: a row a `by`, `dose` and `what` ("rate", "error", "lost"), with `value` and its
            interval.
        caption: of the figure.
    """
    table = cast(Any, doses)
    own = looks(_PATHS.values())
    x, y = Axis("dose"), Axis("share", limits=(0, None))
    panels: list[Panel] = []
    for column, ((by, place), mine) in enumerate(table.groupby(["by", "place"], sort=False)):
        lines = [
            Line.of(
                rows.sort_values("dose"),
                "dose",
                "value",
                name=_PATHS[what],
                look=own[_PATHS[what]],
            )
            for what, rows in mine.groupby("what", sort=False)
        ]
        panels.append(Panel(lines, x, y, f"{by}, {place}", column=column))
    note = "Of the half that neither was chosen on."
    return Figure(panels, caption, doses, note)

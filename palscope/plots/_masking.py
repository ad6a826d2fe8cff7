"""Figure of pathway masking: accuracy by domain with each stream masked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from palscope.measures._masking import ALL_DOMAINS, NOTHING
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Bars, Rule
from palscope.plots._looks import HATCHES, Look, looks

TITLES = {
    "knockout": "text does not read it (knockout)",
    "reroute": "absent: nothing reads it (reroute)",
}
_ACCURACY = Axis("accuracy", "%", limits=(0, 103))
_HALF = 0.45
"""Of the width of a domain's bars."""


def accuracy_by_domain(scores: pd.DataFrame, *, caption: Caption) -> Figure:
    """Bars of accuracy with their intervals: a panel a way, a group a domain, a bar a masking.

    Args:
        scores: of `palscope.measures._masking.masking_scores`.
        caption: of the figure.

    A dotted line across each domain's bars is chance.
    """
    named = {name: _domain(name, rows) for name, rows in scores.groupby("domain", sort=False)}
    table: Any = scores.assign(domain=scores["domain"].map(named))
    table[_SHARES] *= 100
    own = _looks(list(table["masked"].unique()))
    domains = Axis("", categories=tuple(named.values()))
    chances = [
        Rule(chance, "chance", ends=(at - _HALF, at + _HALF))
        for at, chance in enumerate(table.groupby("domain", sort=False)["chance"].first())
    ]
    panels: list[Panel] = []
    for column, (way, rows) in enumerate(table.groupby("way", sort=False)):
        bars = [
            Bars.of(mine, "domain", "accuracy", name=_name(masked), look=own[masked])
            for masked, mine in rows.groupby("masked", sort=False)
        ]
        panels.append(Panel([*bars, *chances], domains, _ACCURACY, TITLES[way], column=column))
    return Figure(panels, caption, scores)


_SHARES = ["accuracy", "low", "high", "chance"]


def _domain(name: Any, rows: Any) -> str:
    return f"{'all domains' if name == ALL_DOMAINS else name}\nn {rows['n'].max()}"


def _name(masked: Any) -> str:
    return "nothing masked" if masked == NOTHING else f"{masked} masked"


def _looks(maskings: list[str]) -> dict[str, Look]:
    """Streams in their colours, nothing in grey; hatches tell it twice."""
    own = {NOTHING: Look("grey")} | looks([each for each in maskings if each != NOTHING])
    return {
        masked: replace(own[masked], hatch=hatch)
        for masked, hatch in zip(maskings, [*HATCHES] * len(maskings), strict=False)
    }

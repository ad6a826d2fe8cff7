"""The figure of accuracy against depth or cost of placements of audio."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from palscope._routing.depths import NO_AUDIO
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line, Points, Rule, Spread
from palscope.plots._looks import REFERENCE, Look, looks

Against = Literal["layers", "first_layer", "prefill_ratio", "cache_ratio"]

LABELS: dict[Against, str] = {
    "layers": "layers with audio",
    "first_layer": "lowest layer with audio",
    "prefill_ratio": "prefill time, relative",
    "cache_ratio": "size of the cache, relative",
}
ACCURACY = Axis("accuracy", limits=(-0.03, 1.05))
_CHANCE = Look("grey", marker="", dash="dash", light=True)


def accuracy_against(table: pd.DataFrame, x: Against, *, caption: Caption) -> Figure:
    """Accuracy with its interval: a row of panels a model, a column a domain, a colour a family.

    The dotted line is the accuracy without audio, the dashed one chance.

    Args:
        table: one row a (model, family, placement, domain): `model, family, placement, domain, n,
            accuracy, low, high, chance` and the column `x`; for `prefill_ratio` its quartiles
            `prefill_ratio_low, prefill_ratio_high` too.
        x: what stands on the horizontal axis.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    models, domains = (whole[column].unique().tolist() for column in ("model", "domain"))
    along = Axis(LABELS[x], integer=not x.endswith("ratio"))
    named = looks(name for name in whole["family"] if name != NO_AUDIO)
    panels = [
        Panel(
            [*_references(rows), *_families(rows, x, named)],
            along,
            ACCURACY,
            f"{model}\n{domain}",
            models.index(model),
            domains.index(domain),
        )
        for (model, domain), rows in whole.groupby(["model", "domain"], sort=False)
    ]
    return Figure(panels, caption, table)


def _families(panel: Any, x: Against, named: dict[str, Look]) -> list[Line | Points]:
    """Placements in order of depth are joined; costs, which are measured, are not."""
    marks: list[Line | Points] = []
    for family, look in named.items():
        rows = panel[panel["family"] == family].sort_values(x)
        further: dict[str, Any] = {"name": family, "look": look, "hover": tuple(rows["placement"])}
        if x.endswith("ratio"):
            further["x_spread"] = Spread.of(rows, x)
        if len(rows):
            kind = Points if x.endswith("ratio") else Line
            marks.append(kind.of(rows, x, "accuracy", **further))
    return marks


def _references(panel: Any) -> list[Rule]:
    chance = Rule(float(panel["chance"].iloc[0]), "chance", look=_CHANCE)
    silent = panel.loc[panel["family"] == NO_AUDIO, "accuracy"]
    return [chance, *(Rule(float(each), NO_AUDIO, look=REFERENCE) for each in silent[:1])]

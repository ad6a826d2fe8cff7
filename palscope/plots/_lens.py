"""The figure of the logit lens."""

from __future__ import annotations

from typing import Any

import pandas as pd

from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line, Rule
from palscope.plots._looks import Look, looks

PASSED = Axis("layers passed", integer=True)
LEADS = Axis("share in which the answer leads", limits=(0, 1.02))
_WRITTEN = "written by "


def readable_by_depth(bands: pd.DataFrame, *, caption: Caption) -> Figure:
    """In what share the right answer leads the other choices, by layers passed; a panel a domain.

    Args:
        bands: `domain, chance, place, depth, n, mean, low, high`: a `mean_band` of `leads` by place
            and depth, of what `by_depth` gives for each clip of a domain.
        caption: what the figure says of its numbers.
    """
    whole: Any = bands
    named = _looks(whole["place"].unique())
    panels: list[Panel] = []
    for column, (domain, rows) in enumerate(whole.groupby("domain", sort=False)):
        lines = [
            Line.of(of.sort_values("depth"), "depth", name=str(place), look=named[place])
            for place, of in rows.groupby("place", sort=False)
        ]
        chance = Rule(float(rows["chance"].iloc[0]), "chance")
        panels.append(Panel([chance, *lines], PASSED, LEADS, str(domain), column=column))
    return Figure(panels, caption, bands)


def _looks(places: Any) -> dict[str, Look]:
    """A stream's place looks like the stream, what it wrote is dashed."""
    own = {"last token": Look("ink", "square"), "other text": Look("text")}
    streams = looks([place for place in places if place not in own and _WRITTEN not in place])
    found = own | streams
    for place in places:
        if place.startswith(_WRITTEN):
            stream = found.get(place.removeprefix(_WRITTEN), Look("text"))
            found[place] = Look(stream.slot, stream.marker, "dash")
    return found

"""Figures of probes: what can be read where, beside what the probe learns by heart."""

from __future__ import annotations

from typing import Any

import pandas as pd

from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line, Points, Rule
from palscope.plots._looks import REFERENCE, Look

_ACCURACY = Axis("accuracy", limits=(-0.03, 1.05))
_LABEL, _CONTROL = "the label, of unseen recordings", "control task: labels drawn at random"
_LOOKS = {
    _LABEL: Look("blue"),
    _CONTROL: Look("vermilion", marker="diamond", hollow=True, dash="dash"),
}


def accuracy_by_layer(scores: pd.DataFrame, *, caption: Caption) -> Figure:
    """Accuracy of probes and of their control task: a row of panels a site, a column a domain.

    Args:
        scores: `probe_scores` of whole clips, with `site` and `layer` (NaN where a site has none).
        caption: of the figure.
    """
    table: Any = scores
    # Encoders and decoders have other layers: each site an axis of its own.
    own = {site: Axis(f"layer of {site}", integer=True) for site in table["site"]}
    return _figure(table, "layer", own, caption)


def accuracy_over_time(scores: pd.DataFrame, *, caption: Caption) -> Figure:
    """The same, of stretches of the clips, against the stretch's middle: a row a hook point.

    Args:
        scores: `probe_scores` of stretches.
        caption: of the figure.
    """
    table: Any = scores
    middle = (table["start"] + table["end"]) / 2
    along = Axis("middle of the stretch", "s", limits=(0, None))
    own = dict.fromkeys(table["hook_point"], along)
    return _figure(table.assign(site=table["hook_point"], middle=middle), "middle", own, caption)


def _figure(scores: Any, x: str, along: dict[str, Axis], caption: Caption) -> Figure:
    """A layer that a site does not have stands at 0."""
    table = scores.assign(**{x: scores[x].fillna(0)})
    sites, domains = (list(dict.fromkeys(table[name])) for name in ("site", "domain"))
    panels = [
        Panel(
            [_chance(rows), *_marks(rows.sort_values(x), x)],
            along[site],
            _ACCURACY,
            f"{site}\n{domain}",
            sites.index(site),
            domains.index(domain),
        )
        for (site, domain), rows in table.groupby(["site", "domain"], sort=False)
    ]
    note = "Each recording is held out once, whole."
    if (table["apart"] == "clip").any():
        alone = ", ".join(dict.fromkeys(table.loc[table["apart"] == "clip", "domain"]))
        note += f" All of {alone} is one recording: there clips are held out."
    return Figure(panels, caption, scores, note)


def _chance(rows: Any) -> Rule:
    return Rule(float(rows["chance"].mean()), "the commonest label", look=REFERENCE)


def _marks(rows: Any, x: str) -> list[Line | Points]:
    kind = Line if len(rows) > 1 else Points
    own = kind.of(rows, x, "accuracy", name=_LABEL, look=_LOOKS[_LABEL])
    heart = kind.of(rows, x, "control", spread="control", name=_CONTROL, look=_LOOKS[_CONTROL])
    return [heart, own]

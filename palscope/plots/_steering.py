"""The figure of steering: a dose curve for the target, and one for what is damaged."""

from __future__ import annotations

from typing import Any

import pandas as pd

from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Line
from palscope.plots._looks import Look

TITLES = {
    "rate": "other clips answered “{}”",
    "log_odds": "log-odds of “{}”, other clips",
    "kept": "clips of “{}” still right",
    "said": "other clips: “{}” is written",
    "elsewhere": "other domains: right",
    "kl": "other domains: next token",
}
_AXES = {
    "log_odds": Axis("log-odds", "nats"),
    "kl": Axis("KL from the run without", "nats", limits=(0, None)),
}
_SHARE = Axis("share of clips", limits=(-0.03, 1.03))
_LOOKS = {
    "direction": Look("blue"),
    "random": Look("vermilion", marker="diamond", hollow=True, dash="dash"),
}
_NAMES = {"direction": "the direction", "random": "a random one, as long"}


def dose_curve(
    doses: pd.DataFrame, target: str, relative_norm: float, *, caption: Caption
) -> Figure:
    """What is answered against the dose: a panel each for the target and for damage.

    Args:
        doses: a row a `what`, `by` ("direction", "random") and `dose`, with `value`, its interval
            and `n`.
        target: the label that the direction leads to.
        relative_norm: of the direction at a dose of 1, beside the rows there.
        caption: of the figure.
    """
    whole: Any = doses
    known = [what for what in TITLES if (whole["what"] == what).any()]
    panels: list[Panel] = []
    for place, what in enumerate(known):
        rows = whole[whole["what"] == what]
        lines = [
            Line.of(
                rows[rows["by"] == by].sort_values("dose"),
                "dose",
                "value",
                name=name,
                look=_LOOKS[by],
            )
            for by, name in _NAMES.items()
        ]
        title = TITLES[what].format(target)
        row, column = divmod(place, 3)
        panels.append(Panel(lines, Axis("dose"), _AXES.get(what, _SHARE), title, row, column))
    note = "How long the rows are is not known."
    if relative_norm == relative_norm:
        note = f"A dose of 1 is {relative_norm:.2f} of the rows' mean norm."
    return Figure(panels, caption, doses, note)

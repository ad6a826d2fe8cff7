"""The figure of erasure: what can still be read, beside what is still answered."""

from __future__ import annotations

from typing import Any

import pandas as pd

from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Bars
from palscope.plots._looks import HATCHES, Look, looks

_TITLES = {
    "decodable": "decodable: a new probe",
    "used": "used: the model's answer",
    "elsewhere": "answers about other domains",
}
_ERASED = {
    "nothing": "nothing is erased",
    "labels": "what tells its labels apart",
    "random": "as many directions at random",
}


def decodable_and_used(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Accuracy of a probe and of the model, with nothing, labels and random directions erased.

    Args:
        table: a row a `question` ("decodable", "used", "elsewhere"), domain `of` and `erased`, with
            `accuracy`, its interval and `n`.
        caption: of the figure.
    """
    whole: Any = table
    own = looks(_ERASED.values())
    domains = Axis("labels of", categories=tuple(dict.fromkeys(whole["of"])))
    panels: list[Panel] = []
    for column, (question, title) in enumerate(_TITLES.items()):
        rows = whole[whole["question"] == question]
        bars = [
            Bars.of(
                rows[rows["erased"] == erased],
                "of",
                "accuracy",
                name=name,
                look=Look(own[name].slot, hatch=hatch),
            )
            for (erased, name), hatch in zip(_ERASED.items(), HATCHES, strict=False)
            if (rows["erased"] == erased).any()
        ]
        if bars:
            accuracy = Axis("accuracy", limits=(0, 1.03))
            panels.append(Panel(bars, domains, accuracy, title, column=column))
    note = "Of clips that neither the eraser nor the probe has seen."
    return Figure(panels, caption, table, note)

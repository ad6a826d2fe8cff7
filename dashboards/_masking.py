"""Pathway masking on the page."""

from __future__ import annotations

import pandas as pd
from _experiments import Asked, Drawing, Experiment, Result, on_route
from _sides import SIDES, with_roles

from palscope.errors import PalscopeError
from palscope.measures._masking import NOTHING, masked_choices, maskings
from palscope.plots import _choices as figures
from palscope.plots._masking import TITLES


@on_route
def _measure(asked: Asked) -> pd.DataFrame:
    if list(maskings(asked.route)) == [NOTHING]:
        raise PalscopeError("no layer of this route has sound, so there is nothing to mask.")
    model, question = asked.model, asked.pair.question
    parts = [
        masked_choices(model, model.inputs(question, clip), asked.candidates).assign(side=side)
        for side, clip in zip(SIDES, (asked.pair.clean, asked.pair.corrupt), strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _draw(table: pd.DataFrame, asked: Asked) -> Result:
    shown = with_roles(table, asked.pair).assign(
        panel=table["way"].map(TITLES.__getitem__),
        x=table["masked"],
        axis="masked",
        own=table["masked"] == NOTHING,
    )
    drawing = Drawing(
        lambda: figures.choices_against(shown),
        lambda: figures.choices_against_paper(shown),
        shown,
    )
    return Result(table, {"masked": drawing})


MASKING = Experiment(
    "masking",
    "A whole pathway is taken from the text, in every layer: by *knockout* no text reads it, but "
    "other sound that runs may; by *rerouting* it is absent, so that nothing reads it. In PAL the "
    "two differ for the frames, which the summary reads too. The model was never trained so: what "
    "it loses says what these weights rely on.",
    "a few seconds",
    lambda model: {},
    _measure,
    _draw,
    lambda asked: asked.command("pathway_masking"),
)

"""The logit lens on the page."""

from __future__ import annotations

import pandas as pd
from _experiments import Asked, Drawing, Experiment, Result, on_route

from palscope.measures import mean_band
from palscope.measures._key_writes import written_by_pathway
from palscope.measures._logit_lens import answer_lead, by_depth, logit_lens, written_lead
from palscope.measures._vocabulary import deciding_entries
from palscope.plots import _lens as figures


@on_route
def _measure(asked: Asked) -> pd.DataFrame:
    pair, model = asked.pair, asked.model
    inputs, choices = deciding_entries(
        model,
        model.inputs(pair.question, pair.clean),
        pair.clean_answer,
        str(pair.corrupt_answer),
    )
    entries = [entry for ids in choices.values() for entry in ids]
    read = logit_lens(model, inputs, answers=entries, top_k=0)
    written = written_by_pathway(model, inputs, answers=entries, top_k=0)
    lead = answer_lead(read, pair.clean_answer, choices)
    return by_depth(lead, written_lead(written, pair.clean_answer, choices))


def _draw(table: pd.DataFrame, asked: Asked) -> Result:
    bands = mean_band([table], ["place", "depth"], value="leads")
    bands = bands.assign(domain=asked.pair.kind, chance=0.5)
    drawing = Drawing(
        lambda: figures.readable_by_depth(bands),
        lambda: figures.readable_by_depth_paper(bands),
        bands,
    )
    return Result(table, {"by depth": drawing})


LENS = Experiment(
    "logit lens",
    "The decoder's output, had it ended after each layer: in what share of the tokens of a place "
    "the clean answer is ahead of the corrupt one. Sound that is keys only has no residual stream, "
    "so what it *writes* to the last token is read instead.",
    "a few seconds",
    lambda model: {},
    _measure,
    _draw,
    lambda asked: asked.command("logit_lens"),
)

"""Where in depth an answer becomes readable: logit lens at the last token and at audio tokens.

    python analyses/logit_lens.py --model demo/pal --audio MANIFEST.csv --out runs/lens

Each clip is asked what it is; the answers to choose from are the labels of its domain, or of a pair
its two answers. After every layer, the state of the last token and of audio that runs goes through
the final norm and the unembedding. Audio that is keys only has no such state: it is read by what
attention moves from it to the last token; of an encoder–decoder not at all. Writes
logit_lens.parquet (a row a place and depth of each clip), readable_from.csv, the figure
readable_by_depth (HTML, PNG, SVG, CSV) and run.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from palscope.analyses import (
    Analysis,
    AskedClip,
    ClipOptions,
    Results,
    Table,
    Work,
    chosen_clips,
    each,
    main,
)
from palscope.errors import PalscopeError
from palscope.measures import mean_band
from palscope.measures._key_writes import writes_are_known, written_by_pathway
from palscope.measures._logit_lens import (
    answer_lead,
    by_depth,
    logit_lens,
    readable_from,
    written_lead,
)
from palscope.measures._vocabulary import deciding_entries, spellings
from palscope.plots import _lens as lens


@dataclass(frozen=True, kw_only=True)
class LensOptions(ClipOptions):
    """Which clips are asked about."""


@each
def measured(work: Work[LensOptions], clip: AskedClip) -> pd.DataFrame:
    """In what share of a place's tokens the right answer leads, by layers passed."""
    if clip.answer is None or len(clip.choices) < 2:
        raise PalscopeError(
            f"{clip.name} has no answer to look for; give a manifest with labels, or pairs."
        )
    model = work.model
    inputs = model.inputs(clip.question, clip.clip)
    if clip.other is not None:  # the answers of a pair may begin alike
        inputs, offered = deciding_entries(model, inputs, clip.answer, clip.other)
    else:
        offered = spellings(model, clip.choices)
    asked: dict[str, Any] = {"answers": [entry for ids in offered.values() for entry in ids]}
    layout = model.layout(inputs)
    columns = layout.layer_columns(model.current_route, 0).running[0]
    sound = columns[layout.stream[0, columns] >= 0]
    read = logit_lens(model, inputs, tokens=[*sound.tolist(), -1], top_k=0, **asked)
    lead, moved = answer_lead(read, clip.answer, offered), None
    if writes_are_known(model):
        written = written_by_pathway(model, inputs, top_k=0, **asked)
        moved = written_lead(written, clip.answer, offered)
    table = by_depth(lead, moved)
    return table.assign(domain=clip.group, label=clip.answer, chance=1 / len(offered))


def by_domain(results: Results[LensOptions, AskedClip]) -> dict[str, list[pd.DataFrame]]:
    """Every clip's rows, by domain."""
    domains: dict[str, list[pd.DataFrame]] = {}
    for _, rows in results.each("logit_lens"):
        domains.setdefault(str(rows["domain"].iloc[0]), []).append(rows)
    return domains


def starts(results: Results[LensOptions, AskedClip]) -> dict[str, pd.DataFrame]:
    """From which depth on answers are readable."""
    bands = [
        mean_band(
            [readable_from(rows) for rows in clips],
            ["place"],
            value="readable_from",
            limits=(0, None),
        ).assign(domain=domain, clips=len(clips))
        for domain, clips in by_domain(results).items()
    ]
    return {"readable_from": pd.concat(bands)}


def drawn(results: Results[LensOptions, AskedClip]) -> dict[str, Any]:
    """A panel a domain."""
    bands = [
        mean_band(clips, ["place", "depth"], value="leads").assign(
            domain=domain, chance=clips[0]["chance"].iloc[0]
        )
        for domain, clips in by_domain(results).items()
    ]
    figure = lens.readable_by_depth(pd.concat(bands), caption=results.caption())
    return {"readable_by_depth": figure}


ANALYSIS = Analysis(
    name="logit_lens",
    title="logit lens",
    about="The decoder's output, had it ended after each layer: in what share of the tokens of a "
    "place the clean answer is ahead of the others. Sound that is keys only has no residual "
    "stream, so what it *writes* to the last token is read instead.",
    passes=lambda work, clip: 8.0,  # two, and every layer's words at every token
    options=LensOptions,
    items=chosen_clips,
    tables=[Table("logit_lens", measured, ("place", "depth"))],
    summaries=starts,
    figures=drawn,
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))

"""Measure what it brings that audio tokens attend: the audio-query ablation.

    python analyses/audio_queries.py --model demo/plits demo/pal --out runs/queries

Reroutes each checkpoint as it is, with the stream that it carries upwards (PLITS: the frames; PAL:
the summary) at three levels: `full` (attend, and pass the feed-forward network), `queries` (attend
alone), `keys` (only read by the text, never changed); in all layers, and in the first third alone.
LAL has no input projector, so nothing that it could carry: it is refused. The weights were trained
for `full`: what they lose says what that model needs, not what is best. LAL trained with audio
queries and without is compared by `reproduce.py audio_queries`.

Questions, intervals, costs and files are those of injection_depth.py. --resume goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from palscope._routing.depths import NO_AUDIO, rerouted_queries
from palscope.analyses import _placements as placements
from palscope.analyses import main
from palscope.analyses._placements import PlacementResults, placement_analysis


def compared(every: Sequence[PlacementResults]) -> dict[str, Any]:
    """The same of several models, a row of panels each."""
    return placements.accuracy_figures(
        placements.of_models(every),
        {"layers": "layers", "time": "prefill_ratio", "cache": "cache_ratio"},
        every,
    )


def by_level(table: Any) -> pd.DataFrame:
    """A panel for each number of layers; in it the levels."""
    silent = table["family"] == NO_AUDIO
    parts = table["family"].str.split(": ")
    return table.assign(
        panel=("in layers " + table["placement"].str.split().str[-1]).where(~silent, NO_AUDIO),
        x=parts.str[-1],
        axis="level of the " + parts.str[0],
    )


ANALYSIS = placement_analysis(
    rerouted_queries,
    by_level,
    compared,
    name="audio_queries",
    title="audio queries",
    about="The sound that the checkpoint carries upwards (PLITS: the frames; PAL: the summary) at "
    "three levels: `full` tokens attend and pass the feed-forward network, `queries` attend alone, "
    "`keys` are only read. The weights were trained for `full`.",
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))

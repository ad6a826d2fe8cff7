"""Measure how accuracy and cost hang on the layers at which audio enters the decoder.

    python analyses/injection_depth.py --model demo/lal demo/pal demo/plits --out runs/depth

Reroutes each checkpoint as it is. LAL, and what an encoder–decoder crosses: first layers, from a
layer upwards, a window that slides. PAL: LAL in the first of its layers with and without the
summary, the summary from a layer upwards. PLITS: frozen from a layer upwards; its layers with audio
are those below, where it runs. The weights were trained for one route: what a rerouted model loses
says where that model reads its audio, not which depth is best. Models trained for each depth are
compared by `reproduce.py injection_depth`, and by `layer_split`.

Every clip is asked about, its domain's labels ranked; intervals (95 %) are over clips. Costs are of
a prompt with --seconds of noise, relative to the model's own route, all timed in turns. Writes
choices.parquet (a row a clip, placement and candidate), answers.parquet (the best one),
costs.parquet, accuracy.csv, figures (HTML, PNG, SVG, CSV) and run.json; of several models in a
folder each, and figures of all. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from palscope._routing.depths import NO_AUDIO, rerouted_depths
from palscope.analyses import _placements as placements
from palscope.analyses import main
from palscope.analyses._placements import PlacementResults, placement_analysis
from palscope.plots._depth import LABELS


def compared(every: Sequence[PlacementResults]) -> dict[str, Any]:
    """The same of several models, a row of panels each."""
    table: Any = placements.of_models(every)
    sliding = table["family"].str.contains("window")
    silent = (table["family"] == NO_AUDIO) & table["model"].isin(table.loc[sliding, "model"])
    draw = partial(placements.accuracy_figures, every=every)
    return (
        draw(table[~sliding], {"layers": "layers"})
        | draw(table[sliding | silent], {"window": "first_layer"})
        | draw(table, {"time": "prefill_ratio", "cache": "cache_ratio"})
    )


def by_sweep(table: Any) -> pd.DataFrame:
    """A panel a sweep. Windows are as wide as each other: they differ in where they begin."""
    windows = table["family"].str.contains("window")
    return table.assign(
        panel=table["family"],
        x=table["layers"].where(~windows, table["first_layer"]),
        axis=windows.map({True: LABELS["first_layer"], False: LABELS["layers"]}),
    )


ANALYSIS = placement_analysis(
    rerouted_depths,
    by_sweep,
    compared,
    name="injection_depth",
    title="injection depth",
    about="The checkpoint as it is, its sound let into other layers: LAL in the first, from a "
    "layer upwards, or in a window; PAL with less of LAL, without the summary, or with the summary "
    "from a layer upwards; PLITS frozen from a layer upwards. Both clips are asked, so that an "
    "answer that wins whatever is heard shows.",
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))

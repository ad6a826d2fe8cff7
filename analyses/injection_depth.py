"""Measure how accuracy and cost hang on the layers at which audio enters the decoder.

    python analyses/injection_depth.py --model demo/lal demo/pal demo/plits --out runs/depth
    python analyses/injection_depth.py --model demo/lal --train MANIFEST.csv --out runs/depth

Reroutes each checkpoint as it is. LAL: first layers, from a layer upwards, a window that slides.
PAL: LAL in the first of its layers with and without the summary, the summary from a layer upwards.
PLITS: frozen from a layer upwards; its layers with audio are those below, where it runs. The
weights were trained for one route: what a rerouted model loses says where that model reads its
audio, not which depth is best.

With --train it also trains a connector for each depth from scratch, with about equal numbers of
parameters (hidden widths differ) and equal steps, batches and seed. After few steps it shows how
fast depths learn, not what they reach; it is one seed, so no ranking closer than the intervals.

Every clip is asked about, its domain's labels ranked; intervals (95 %) are over clips. Costs are of
a prompt with --seconds of noise, relative to the model's own route (trained: LAL in all layers),
all timed in turns. Writes accuracy.csv (all models) and figures (HTML, PNG, SVG, CSV); in a
folder a model answers.parquet, costs.parquet, accuracy.parquet and run.json. --resume goes on.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pandas as pd

from palscope._routing.depths import NO_AUDIO, rerouted_depths, trained_depths
from palscope._sweeps import commands, processes
from palscope.evaluation import _placement_runs as placement_runs
from palscope.plots import _depth as depth
from palscope.training._demo import LAYERS


def main() -> int:
    parser = commands.arguments(__doc__, models=True)
    placement_runs.add_arguments(parser)
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure, and draw all models together."""
    tables = [placement_runs.rerouted(given, rerouted_depths)]
    if given.train:
        baseline = f"LAL 0-{LAYERS - 1}"
        tables.append(placement_runs.trained(given, trained_depths(LAYERS), baseline))
    if processes.place()[0] == 0:
        draw(pd.concat(tables, ignore_index=True), given.out)


def draw(table: Any, out: Path) -> None:
    """Accuracy against layers, against the place of a window of layers, and against cost."""
    table.to_csv(out / "accuracy.csv", index=False)
    sliding = table["family"].str.contains("window")
    silent = (table["family"] == NO_AUDIO) & table["model"].isin(table.loc[sliding, "model"])
    figures: list[tuple[str, depth.Against, pd.DataFrame]] = [
        ("accuracy_by_layers", "layers", table[~sliding]),
        ("accuracy_by_window", "first_layer", table[sliding | silent]),
        ("accuracy_by_time", "prefill_ratio", table),
        ("accuracy_by_cache", "cache_ratio", table),
    ]
    for name, x, rows in figures:
        if len(rows):
            caption = placement_runs.caption(rows)
            depth.accuracy_against(rows, x, caption=caption).save(out / name)
    print(f"results in {out}")


if __name__ == "__main__":
    raise SystemExit(main())

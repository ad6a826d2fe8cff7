"""Measure what it brings that audio tokens attend: the audio-query ablation.

    python analyses/audio_queries.py --model demo/plits demo/pal --out runs/queries
    python analyses/audio_queries.py --model demo/plits --train MANIFEST.csv --out runs/queries

Reroutes each checkpoint as it is, with the stream that it carries upwards (PLITS: the frames; PAL:
the summary) at three levels: `full` (attend, and pass the feed-forward network), `queries` (attend
alone), `keys` (only read by the text, never changed); in all layers, and in the first third alone.
LAL has no input projector, so nothing that it could carry: it is left out, and said. The weights
were trained for `full`: what they lose says what that model needs, not what is best.

With --train it also trains LAL from scratch with audio queries (carried frames that attend and skip
the feed-forward network) and without (a projector a layer), in all layers and in the first third,
with about equal numbers of parameters and equal steps, batches and seed. After few steps it shows
how fast they learn, not what they reach; it is one seed, so no ranking closer than the intervals.

Questions, intervals, costs and files are those of injection_depth.py; trainings of both may share a
folder (--checkpoints). --resume goes on.
"""

from __future__ import annotations

from argparse import Namespace

import pandas as pd

from palscope._routing.depths import rerouted_queries, trained_queries
from palscope._sweeps import commands, processes
from palscope.errors import PalscopeError
from palscope.evaluation import _placement_runs as placement_runs
from palscope.plots import _depth as depth
from palscope.training._demo import LAYERS


def main() -> int:
    parser = commands.arguments(__doc__, models=True)
    placement_runs.add_arguments(parser)
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Measure, and draw all models together."""
    tables = [placement_runs.rerouted(given, rerouted_queries)]
    if given.train:
        baseline = f"LAL 0-{LAYERS - 1}"
        tables.append(placement_runs.trained(given, trained_queries(LAYERS), baseline))
    table = pd.concat(tables, ignore_index=True)
    if not len(table):
        raise PalscopeError(
            "no model can be rerouted to attend; give one that carries audio (PLITS, PAL), or "
            "--train."
        )
    if processes.place()[0] == 0:
        table.to_csv(given.out / "accuracy.csv", index=False)
        against: list[depth.Against] = ["layers", "prefill_ratio", "cache_ratio"]
        for x, name in zip(against, ("layers", "time", "cache"), strict=True):
            figure = depth.accuracy_against(table, x, caption=placement_runs.caption(table))
            figure.save(given.out / f"accuracy_by_{name}")
        print(f"results in {given.out}")


if __name__ == "__main__":
    raise SystemExit(main())

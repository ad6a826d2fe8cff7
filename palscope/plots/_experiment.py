"""Systems of an experiment side by side: scores by set of questions, and scores against cost."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Points, Spread
from palscope.plots._looks import Look, looks

Cost = Literal["peak_ratio", "cache_ratio", "prefill_ratio", "step_ratio", "step_peak_ratio"]

COST_LABELS: dict[Cost, str] = {
    "peak_ratio": "peak memory of prefill, relative",
    "cache_ratio": "size of the cache, relative",
    "prefill_ratio": "prefill time, relative",
    "step_ratio": "time of a training step, relative",
    "step_peak_ratio": "peak memory of a training step, relative",
}
SCORE = Axis("score", limits=(-0.03, 1.08))
_SEED = Look("grey", "line-ns")


def scores_by_system(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """Scores with their intervals, a row a system, a panel a set; the grey marks are its seeds.

    The intervals are over clips, for the seeds that were trained: another seed may lie outside.

    Args:
        table: from `palscope.evaluation._reproduce.summary`.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    systems = Axis("", categories=tuple(reversed(whole["variant"].unique().tolist())))
    panels: list[Panel] = []
    for column, (name, rows) in enumerate(whole.groupby("set", sort=False)):
        title = f"{name}\n{int(rows['seeds'].iloc[0])} seeds"
        panels.append(Panel(_scores(rows, systems), SCORE, systems, title, column=column))
    return Figure(panels, caption, table)


def score_against_cost(table: pd.DataFrame, cost: Cost, *, caption: Caption) -> Figure:
    """The score over all sets against what a system costs beside the baseline.

    Args:
        table: from `palscope.evaluation._reproduce.summary`.
        cost: a column of it.
        caption: what the figure says of its numbers.
    """
    whole: Any = table
    named = looks(whole["variant"])
    # The rows over all sets; where there is one set alone, its rows.
    overall = whole[whole["set"] == whole["set"].iloc[-1]].dropna(subset=[cost])
    points = [
        Points.of(rows, cost, "score", name=str(name), look=named[name])
        for name, rows in overall.groupby("variant", sort=False)
    ]
    x = Axis(COST_LABELS[cost], limits=(0, None))
    return Figure([Panel(points, x, SCORE)], caption, table)


def _scores(rows: Any, systems: Axis) -> list[Points]:
    places = systems.places(rows["variant"])
    each = zip(rows["seed_values"], places, rows["n"], strict=True)
    seeds = [(score, place, n) for values, place, n in each for score in values.numbers]
    scores, seed_places, clips = zip(*seeds, strict=True)
    return [
        Points(scores, seed_places, clips, look=_SEED),
        Points(rows["score"], places, rows["n"], look=Look("blue"), x_spread=Spread.of(rows)),
    ]

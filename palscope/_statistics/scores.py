"""Scores over clips of what answers got, and what one run gets more than another on the same clips.

A table of points has a row a question: its `clip`, what the answer `got`, and `of` how much.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from palscope._statistics.intervals import NO_INTERVAL, Interval, mean_interval, ratio_interval
from palscope._statistics.shares import change_interval, share_interval
from palscope._statistics.significance import least_p, paired_p


class Score(NamedTuple):
    """A score over clips, its interval, and each clip's own score."""

    score: float
    interval: Interval
    by_clip: Float[np.ndarray, " clips"]


class Difference(NamedTuple):
    """B's score less A's, its interval, and the two-sided `p` of none, at least `least_p`."""

    interval: Interval
    by_clip: Float[np.ndarray, " clips"]
    p: float
    least_p: float


def score_of(rows: pd.DataFrame, *, confidence: float = 0.95) -> Score:
    """`got` over `of`, summed, with an interval over clips, each with all its questions.

    Where points are counts (whole, none more than there is to get), the score is a share, with the
    interval of `share_interval`; else a ratio of means, with that of `ratio_interval`.

    Args:
        rows: `clip, got, of`, one row an answer.
        confidence: of the interval.
    """
    sums: Any = cast(Any, rows).groupby("clip")[["got", "of"]].sum()
    got, of = (sums[name].to_numpy(float) for name in ("got", "of"))
    counted = _counts(rows, "got", "of")
    interval = (
        share_interval(got, of, confidence=confidence)
        if counted
        else ratio_interval(got, of, confidence=confidence)
    )
    known = of > 0
    return Score(_share(got, of), interval, got[known] / of[known])


def difference_of_scores(rows: pd.DataFrame, *, confidence: float = 0.95) -> Difference:
    """What B gets more than A on the same clips.

    Args:
        rows: `clip, got_a, of_a, got_b, of_b`, one row a question that both answered.
        confidence: of the interval.

    Returns:
        The interval of `change_interval` where points are counts, else of `mean_interval`; and
        `paired_p` over clips. The p is NaN where the two had not the same to get.
    """
    columns = ["got_a", "of_a", "got_b", "of_b"]
    sums: Any = cast(Any, rows).groupby("clip")[columns].sum()
    got_a, of_a, got_b, of_b = (sums[column].to_numpy(float) for column in columns)
    # What each clip adds to the difference of the two ratios, to first order.
    of_clip = _added(got_b, of_b) - _added(got_a, of_a)
    if _counts(rows, "got_a", "of_a") and _counts(rows, "got_b", "of_b"):
        interval = change_interval(of_clip, confidence=confidence)
    elif np.isfinite(of_clip).all():
        interval = mean_interval(of_clip, confidence=confidence)
    else:
        interval = NO_INTERVAL
    if not np.array_equal(of_a, of_b):
        return Difference(interval, of_clip, float("nan"), float("nan"))
    changes = got_b - got_a
    return Difference(interval, of_clip, paired_p(changes), least_p(changes))


def _added(
    got: Float[np.ndarray, " clips"], of: Float[np.ndarray, " clips"]
) -> Float[np.ndarray, " clips"]:
    """One number a clip, of which the mean is the score and the spread is the score's."""
    score = _share(got, of)
    return score + (got - score * of) / of.mean()


def _counts(rows: Any, gained: str, whole: str) -> bool:
    points: list[tuple[float, float]] = list(zip(rows[gained], rows[whole], strict=True))
    return all(got == round(got) and of == round(of) and got <= of for got, of in points)


def _share(got: Float[np.ndarray, " clips"], of: Float[np.ndarray, " clips"]) -> float:
    # Nothing got of nothing is unknown, as an F1 without a label has it.
    return float(got.sum() / of.sum()) if of.sum() else float("nan")

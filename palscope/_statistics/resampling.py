"""Percentile bootstrap over clips, of what is no mean: medians, and areas under ROC curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from palscope._statistics.intervals import FEWEST, NO_INTERVAL, Interval

_DRAWS = 2000


def resampled(
    statistic: Callable[[Int[np.ndarray, " clips"]], float],
    clips: int,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of a statistic, clips being what is sampled, each with all that belongs to it.

    Args:
        statistic: of the clips of these numbers, which may come several times.
        clips: how many there are.
        confidence: of the interval.
        seed: of the draws.

    Returns:
        The ends; NaN of fewer than `FEWEST` clips.
    """
    if clips < FEWEST:
        return NO_INTERVAL
    drawn = np.random.default_rng(seed).integers(clips, size=(_DRAWS, clips))
    values = [statistic(each) for each in drawn]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def auroc(score: Float[np.ndarray, " things"], listed: Bool[np.ndarray, " things"]) -> float:
    """The chance that a thing that is listed scores more than one that is not; a tie is half.

    NaN where all or none are listed.
    """
    return float(aurocs(np.asarray(score)[:, None], listed)[0])


def aurocs(
    scores: Float[np.ndarray, "things units"], listed: Bool[np.ndarray, " things"]
) -> Float[np.ndarray, " units"]:
    """`auroc` of each column."""
    return aurocs_of_labels(scores, listed[:, None])[:, 0]


def aurocs_of_labels(
    scores: Float[np.ndarray, "things units"], listed: Bool[np.ndarray, "things labels"]
) -> Float[np.ndarray, "units labels"]:
    """`auroc` of each column for each label; things are ranked once."""
    on = listed.sum(0)
    pairs = on * (len(listed) - on)
    ranks: Any = cast(Any, stats).rankdata(scores, axis=0)
    above = ranks.T @ listed.astype(float) - on * (on + 1) / 2
    return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)

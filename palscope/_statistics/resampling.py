"""Of what is no mean: the percentile bootstrap over clips, and areas under ROC curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, stats

from palscope._statistics.intervals import FEWEST, NO_INTERVAL, Interval

_DRAWS = 2000

RECORDINGS = 5
"""Recordings on either side that an interval of an area needs."""


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


def auroc_interval(
    score: Float[np.ndarray, " clips"],
    listed: Bool[np.ndarray, " clips"],
    groups: Sequence[str],
    *,
    confidence: float = 0.95,
) -> Interval:
    """Interval of `auroc`, recordings being what is sampled.

    Newcombe's (2006, Stat. Med. 25, 559-573, method 5): the areas from which the one found is no
    further away than Hanley and McNeil's variance there allows. It holds next to 1 and of few
    clips, where bootstraps and DeLong's are too narrow (`benchmarks/coverage.py`).

    Args:
        score: of each clip.
        listed: which are to be told from the others.
        groups: the recording or speaker of each; "" of one that is alone.
        confidence: of the interval.

    Returns:
        The ends; NaN where either side has fewer than `RECORDINGS`.
    """
    names = np.array([name or f"alone {at}" for at, name in enumerate(groups)])
    sizes = [len(set(names[side])) for side in (listed, ~listed)]
    if min(sizes) < RECORDINGS:
        return NO_INTERVAL
    found = auroc(score, listed)
    z = float(stats.norm.ppf((1 + confidence) / 2))
    more = sum(sizes) / 2 - 1

    def outside(at: float) -> float:
        spread = 1 + more * ((1 - at) / (2 - at) + at / (1 + at))
        return abs(at - found) - z * float(np.sqrt(at * (1 - at) * spread / np.prod(sizes)))

    edge = 1e-9
    low, high = 0.0, 1.0
    if found > edge and outside(edge) > 0:
        low = float(cast(Any, optimize).brentq(outside, edge, min(found, 1 - edge)))
    if found < 1 - edge and outside(1 - edge) > 0:
        high = float(cast(Any, optimize).brentq(outside, max(found, edge), 1 - edge))
    return Interval(low, high)

"""Intervals of shares: of answers that are right, of clips that change, of points that are got."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy import stats

from palscope._statistics.intervals import CLUSTERS, NO_INTERVAL, Interval


def wilson(got: float, of: float, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of `got` out of `of`, as fractions of one.

    Of nothing nothing is known: `of` = 0 gives (0, 1). Numbers need not be whole (`share_interval`
    counts questions that say less than one).

    Raises:
        ValueError: `got` is not between 0 and `of`.
    """
    if not 0 <= got <= of:
        raise ValueError(f"{got} out of {of} is no share; expected 0 <= got <= of.")
    if of == 0:
        return Interval(0.0, 1.0)
    z = float(cast(Any, stats).norm.ppf((1 + confidence) / 2))
    share = got / of
    middle = (got + z**2 / 2) / (of + z**2)
    half = z / (of + z**2) * np.sqrt(of * share * (1 - share) + z**2 / 4)
    # Rounding must not part an end from a share of nothing, or of all.
    low = 0.0 if got == 0 else float(middle - half)
    return Interval(low, 1.0 if got == of else float(middle + half))


def share_interval(got: Any, of: Any, *, confidence: float = 0.95) -> Interval:
    """Interval of the summed `got` over the summed `of`, clips being what is sampled.

    Questions about one clip are answered alike, so they say less than as many clips would: they are
    counted as what they say (Korn and Graubard 1998, Survey Methodology 24, 193-201), and Wilson's
    interval is taken. With one question a clip, right or wrong, it is Wilson's as it is.

    Args:
        got: of each clip, at least 0 and at most its `of`.
        of: of each clip.

    Returns:
        Fractions of one; NaN of fewer than `CLUSTERS` clips that have several questions, or parts
        of one right.
    """
    points, most = np.asarray(got, dtype=np.float64), np.asarray(of, dtype=np.float64)
    total = float(most.sum())
    if not total:
        return Interval(0.0, 1.0)
    share = float(points.sum()) / total
    if (most == 1).all() and np.isin(points, (0, 1)).all():
        return wilson(float(points.sum()), total, confidence=confidence)
    clips = int((most > 0).sum())
    if clips < CLUSTERS:
        return NO_INTERVAL
    variance = clips / (clips - 1) * float(((points - share * most) ** 2).sum()) / total**2
    if variance:
        worth = min(share * (1 - share) / variance, total)
        quantile = (1 + confidence) / 2
        known: Any = stats
        worth *= (known.norm.ppf(quantile) / known.t.ppf(quantile, clips - 1)) ** 2
    else:  # all alike: each clip is one of its kind, however much is asked about it
        worth = float(clips)
    return wilson(min(share * worth, worth), worth, confidence=confidence)


def change_interval(changes: Any, *, confidence: float = 0.95) -> Interval:
    """Interval of the mean change of a share from one condition to another, over the same clips.

    That of Agresti and Min (2005, Stat. Med. 24, 729-740), with Student's t: as if two more clips
    had been asked, in which as much was won as lost. Without them, clips that all stay as they were
    would have an interval without width.

    Args:
        changes: of each clip, from -1 (was right, no longer is) to 1 (was wrong, now is right).

    Returns:
        Between -1 and 1; NaN of fewer than `CLUSTERS` clips.
    """
    moved = np.asarray(changes, dtype=np.float64)
    if len(moved) < CLUSTERS:
        return NO_INTERVAL
    n = len(moved) + 2
    mean = float(moved.sum()) / n
    variance = (float((moved**2).sum()) + 1) / n - mean**2
    quantile = float(cast(Any, stats).t.ppf((1 + confidence) / 2, n - 1))
    half = quantile * float(np.sqrt(variance / n))
    return Interval(max(-1.0, mean - half), min(1.0, mean + half))

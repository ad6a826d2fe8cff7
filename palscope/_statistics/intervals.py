"""Intervals of means, of ratios of means, and of their differences.

All take one value a clip (or pair of clips): what is sampled. Questions about one clip, layers,
heads and tokens are no further clips; average them within the clip first.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

FEWEST = 20
"""Values that an interval of a mean needs. Of fewer, skewed ones are missed too often."""

CLUSTERS = 8
"""Clips that an interval of a share needs, where they have several questions each."""

_FARTHEST = 1e6
"""An end of a ratio's interval so many half-widths away is none."""


class Interval(NamedTuple):
    """`low` and `high`; both NaN where there is no interval."""

    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return self.low == self.low


NO_INTERVAL = Interval(float("nan"), float("nan"))


def mean_interval(values: Any, *, confidence: float = 0.95) -> Interval:
    """The interval of one mean; see `mean_intervals`."""
    low, high = mean_intervals(values, confidence=confidence)
    return Interval(float(low), float(high))


def mean_intervals(
    values: Any, *, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Confidence intervals of means over clips, along the last axis.

    It reaches from the lower to the upper end of two intervals: Student's, which holds for
    symmetric values, and Hall's (1992, J. R. Stat. Soc. B 54, 221-228), Student's with the skewness
    of the values removed. Percentile, BCa and bootstrap-t intervals miss more often where clips are
    few.

    Args:
        values: `[..., clips]`, one value a clip; NaN where a clip has none, which is not counted.
        confidence: of the interval.

    Returns:
        The lower and the upper ends, `[...]`; NaN of fewer than `FEWEST` clips, and where all
        values are the same (which says nothing of the next clip).

    Raises:
        ValueError: a value is infinite.
    """
    given = np.asarray(values, dtype=np.float64)
    if np.isinf(given).any():
        raise ValueError("an interval is of finite values; one here is infinite.")
    n = (~np.isnan(given)).sum(-1)
    low = np.full(given.shape[:-1], np.nan)
    high = low.copy()
    spread = np.nanmax(given, axis=-1, initial=-np.inf) > np.nanmin(given, axis=-1, initial=np.inf)
    enough = (n >= FEWEST) & spread
    if enough.any():
        low[enough], high[enough] = _ends(given[enough], n[enough], confidence)
    return low, high


def ratio(top: Any, bottom: Any) -> float:
    """The ratio of two means over the same clips; NaN where the lower one is nothing.

    A mean of ratios would be ruled by clips of which the lower value is next to nothing.
    """
    above, below = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    # Sums that cancel to their rounding are nothing.
    least = len(below) * float(np.finfo(np.float64).eps) * float(np.abs(below).sum())
    return float(above.sum() / below.sum()) if abs(below.sum()) > least else float("nan")


def ratio_interval(top: Any, bottom: Any, *, confidence: float = 0.95) -> Interval:
    """Confidence interval of a ratio of means over the same clips.

    Fieller's argument (1954): a ratio r belongs to it if the mean of top - r · bottom may be
    nothing, here by either of the intervals of `mean_intervals`.

    Args:
        top: one value a clip.
        bottom: one value a clip.

    Returns:
        The ends; NaN of fewer than `FEWEST` clips, and where the mean of `bottom` may be nothing
        itself: then the ratio may be anything.
    """
    above, below = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    n = len(below)
    if n < FEWEST or not np.isfinite([above, below]).all():
        return NO_INTERVAL
    limit = _quantile(n, confidence)
    if _distance(below) <= limit:
        return NO_INTERVAL
    middle = above.sum() / below.sum()
    rest = above - middle * below
    unit = float(rest.std(ddof=1)) / np.sqrt(n) / abs(float(below.mean())) * limit
    if unit <= 1e-12 * max(abs(middle), 1e-12):  # the same ratio in every clip
        return NO_INTERVAL

    def outside(at: float) -> float:
        return _distance(above - at * below) - limit

    ends: list[float] = []
    for side in (-1.0, 1.0):
        far = unit
        while outside(middle + side * far) <= 0:
            far *= 2
            if far > _FARTHEST * unit:
                return NO_INTERVAL
        ends.append(float(cast(Any, optimize).brentq(outside, middle, middle + side * far)))
    return Interval(ends[0], ends[1])


def difference_of(
    one: float, one_interval: Interval, other: float, other_interval: Interval
) -> Interval:
    """Interval of `one` less `other`, of clips that are not the same, from the interval of each.

    Distances to the ends are squared and added ("MOVER": Zou and Donner 2008, Stat. Med. 27,
    1693-1702), so that it is as skewed as they are.
    """
    a, b = one_interval, other_interval
    difference = one - other
    down = np.hypot(one - a.low, b.high - other)
    up = np.hypot(a.high - one, other - b.low)
    return Interval(float(difference - down), float(difference + up))


def _quantile(n: Any, confidence: float) -> Any:
    return cast(Any, stats).t.ppf((1 + confidence) / 2, n - 1)


def _moments(values: Float[np.ndarray, "... clips"], n: Any) -> tuple[Any, Any, Any]:
    """Mean, standard error, and skewness over √n."""
    mean = np.nanmean(values, axis=-1)
    from_mean = values - mean[..., None]
    square = np.nanmean(from_mean**2, axis=-1)
    cube = np.nanmean(from_mean**3, axis=-1)
    return mean, np.sqrt(square / (n - 1)), cube / square**1.5 / np.sqrt(n)


def _ends(
    values: Float[np.ndarray, "groups clips"], n: Any, confidence: float
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    mean, error, skew = _moments(values, n)
    limit = _quantile(n, confidence)
    low = mean - np.maximum(limit, _untwisted(limit, skew)) * error
    high = mean + np.maximum(limit, -_untwisted(-limit, skew)) * error
    return low, high


def _untwisted(limit: Any, skew: Any) -> Any:
    """The t whose `_straightened` is `limit`."""
    some = np.where(np.abs(skew) < 1e-9, 1.0, skew)
    found = 3 / some * (np.cbrt(1 + some * (limit - some / 6)) - 1)
    return np.where(np.abs(skew) < 1e-9, limit, found)


def _straightened(t: float, skew: float) -> float:
    """Hall's transformation of Student's t, which rises with t throughout."""
    return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6


def _distance(values: Float[np.ndarray, " clips"]) -> float:
    """How far the mean is from nothing, in standard errors, by the nearer of both intervals."""
    if np.ptp(values) == 0:
        return 0.0 if values[0] == 0 else float("inf")
    mean, error, skew = (float(each) for each in _moments(values, len(values)))
    t = mean / error
    return min(abs(t), abs(_straightened(t, skew)))

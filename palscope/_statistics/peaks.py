"""Interval of where a mean curve has its peak."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from palscope._statistics.intervals import FEWEST, NO_INTERVAL, Interval

_RESAMPLES = 2000


def peak_interval(
    curves: Float[np.ndarray, "clips places"],
    places: Shaped[np.ndarray, " places"],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the place at which the mean of the clips' curves is greatest.

    A peak jumps between places, so that no interval of a mean is its interval; where two places are
    nearly as high, both belong to it.

    Args:
        curves: a value a clip and place.
        places: what the places are called, ascending.
        confidence: of the interval.
        seed: of the resampling.

    Returns:
        The ends, which are places; NaN of fewer than `FEWEST` clips.
    """
    n = len(curves)
    if n < FEWEST:
        return NO_INTERVAL
    drawn = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
    peaks = places[curves[drawn].mean(1).argmax(-1)]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(peaks, tails, method="inverted_cdf")
    return Interval(float(low), float(high))

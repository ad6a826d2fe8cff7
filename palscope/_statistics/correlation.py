"""Interval of a correlation over the cells of several clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from palscope._statistics.intervals import FEWEST, NO_INTERVAL, Interval, mean_interval

PairedCells = tuple[Float[np.ndarray, " _cells"], Float[np.ndarray, " _cells"]]
"""Two numbers of each cell of one clip; clips may have other numbers of cells."""


def correlation_interval(
    correlate: Callable[[Any, Any], float],
    clips: Sequence[PairedCells],
    *,
    confidence: float = 0.95,
) -> Interval:
    """Interval of a correlation over all cells, clips being what is sampled.

    Cells of one clip are much alike, so each clip is left out in turn: the interval of the mean of
    the jackknife's pseudo-values, on Fisher's scale.

    Args:
        correlate: the correlation of two lists of numbers, between -1 and 1, or NaN.
        clips: the cells of each clip.

    Returns:
        The ends; NaN of fewer than `FEWEST` clips, or where leaving a clip out leaves nothing that
        varies.
    """
    n = len(clips)
    if n < FEWEST:
        return NO_INTERVAL
    whole = _fisher(correlate(*all_cells(clips)))
    rest = np.array(
        [_fisher(correlate(*all_cells([*clips[:i], *clips[i + 1 :]]))) for i in range(n)]
    )
    each = n * whole - (n - 1) * rest
    if not np.isfinite(each).all():
        return NO_INTERVAL
    low, high = mean_interval(each, confidence=confidence)
    return Interval(float(np.tanh(low)), float(np.tanh(high)))


def all_cells(
    clips: Sequence[PairedCells],
) -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"]]:
    """The cells of all clips."""
    return np.concatenate([x for x, _ in clips]), np.concatenate([y for _, y in clips])


def _fisher(correlation: float) -> float:
    return float(np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12)))

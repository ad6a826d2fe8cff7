"""Histograms of units' values: bins that grow by octaves, and how seldom a value is so large."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

BINS, PER_OCTAVE = 96, 4
"""How many, and how many of them to each doubling."""
EDGES = 2.0 ** (-12 + np.arange(BINS + 1) / PER_OCTAVE)
"""Of the bins, from 0.00024 to 4,096; the outer ones hold what lies beyond."""
OF_ATTENTION = 2.0 ** (-24 + np.arange(BINS + 1) / PER_OCTAVE)
"""Of shares of attention, from 6e-8 to 1."""


def bin_of(
    values: Float[np.ndarray, " values"], edges: Float[np.ndarray, " edges"]
) -> Int[np.ndarray, " values"]:
    """The bin of values that are above 0."""
    place = np.floor((np.log2(values) - np.log2(edges[0])) * PER_OCTAVE).astype(np.int64)
    return np.clip(place, 0, BINS - 1)


def shares_below(
    values: Float[np.ndarray, "rows units"],
    counts: Int[np.ndarray, "units bins"],
    rows: int,
    edges: Float[np.ndarray, " edges"],
) -> Float[np.ndarray, "rows units"]:
    """Of each value the share of rows on which its unit is weaker; 0 where it does not fire.

    Within a bin of the histogram in proportion.
    """
    place = (np.log2(np.maximum(values, edges[0])) - np.log2(edges[0])) * PER_OCTAVE
    place = np.minimum(place, counts.shape[1] - 1e-6)
    whole, part = np.floor(place).astype(int), place % 1
    below = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, 1)], 1)
    unit = np.arange(len(counts))[None]
    found = below[unit, whole] + part * counts[unit, whole]
    silent = rows - counts.sum(1)
    return np.where(values > 0, (silent + found) / rows, 0.0)

"""Tests of paired answers, and how many of a table's are found by chance."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy import stats

_EXACT = 14
"""Up to so many clips that change, all ways to exchange their two sides are counted."""

_DRAWS = 19_999


def paired_p(changes: Any, *, seed: int = 0) -> float:
    """Two-sided p value that two conditions do equally well on the same clips.

    The sides of each clip, with all its questions, are exchanged at random (a sign-flip test). With
    one question a clip, right or wrong, that is McNemar's exact test (1947); with several it is
    not, and McNemar's p would be too small.

    Args:
        changes: of each clip, what the one condition gets more than the other.
        seed: of the random exchanges; up to 14 clips that change, all are counted.

    Returns:
        From `least_p(changes)` to 1.
    """
    moved = np.asarray(changes, dtype=np.float64)
    moved = moved[moved != 0]
    if not len(moved):
        return 1.0
    library: Any = stats
    if np.ptp(np.abs(moved)) == 0:
        return float(library.binomtest(int((moved > 0).sum()), len(moved)).pvalue)
    if len(moved) == 1:
        return 1.0
    found = library.permutation_test(
        (moved,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**_EXACT if len(moved) <= _EXACT else _DRAWS,
        rng=seed,
    )
    return float(found.pvalue)


def least_p(changes: Any) -> float:
    """The least p that `paired_p` can give: 2 / 2^k, where k clips change.

    So of fewer than six clips that change none is below 0.05, however large the changes are.
    """
    return min(1.0, 2.0 ** (1 - int(np.count_nonzero(np.asarray(changes)))))


def false_discovery(p: Any) -> Float[np.ndarray, " tests"]:
    """Benjamini and Hochberg's (1995) adjusted p values of all tests of one table.

    Of the tests with a value up to 0.05, one in twenty is expected to be a find of chance. NaN
    stays NaN, and is not counted as a test.
    """
    given = np.asarray(p, dtype=np.float64)
    adjusted = np.full(given.shape, np.nan)
    known = ~np.isnan(given)
    if known.any():
        adjusted[known] = cast(Any, stats).false_discovery_control(given[known])
    return adjusted

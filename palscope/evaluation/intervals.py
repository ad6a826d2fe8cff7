"""Confidence intervals of scores: Wilson's, and the bootstrap over clips."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

from palscope.measures.bands import bootstrap_interval


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of `correct` out of `n`, as fractions of one.

    Of nothing nothing is known: `n` = 0 gives (0, 1).

    Raises:
        ValueError: `correct` is not between 0 and `n`.
    """
    if n == 0 and correct == 0:
        return 0.0, 1.0
    test = cast(Any, stats).binomtest(correct, n)
    interval = test.proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def ratio_interval(
    rows: pd.DataFrame, *, share: bool = True, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of `got` over `of`, clips resampled with all their questions.

    Where every answer is right, or every one wrong, resampling shows no spread that is there; then
    it is Wilson's interval over clips.

    Args:
        rows: `clip, got, of`, one row a mark.
        share: the score is a share of one (an accuracy, an F1), so that Wilson's holds.
        confidence: of the interval.
        seed: of the resampling.

    Returns:
        In the score's units; None where a single clip says nothing of others.
    """
    sums: Any = cast(Any, rows).groupby("clip")[["got", "of"]].sum()
    got, of = sums["got"].to_numpy(float), sums["of"].to_numpy(float)
    shares = got / of
    if share and (shares == shares[0]).all() and shares[0] in (0.0, 1.0):
        return wilson(int(shares.sum()), len(shares), confidence)
    if len(got) < 2:
        return None
    return bootstrap_interval((got, of), _ratio, paired=True, confidence=confidence, seed=seed)


def difference_interval(
    rows: pd.DataFrame, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Paired percentile bootstrap interval of B's score less A's, over clips.

    Args:
        rows: `clip, got_a, of_a, got_b, of_b`, one row a question that both answered.
        confidence: of the interval.
        seed: of the resampling.

    Returns:
        In the score's units; None for a single clip.
    """
    columns = ["got_a", "of_a", "got_b", "of_b"]
    sums: Any = cast(Any, rows).groupby("clip")[columns].sum()
    if len(sums) < 2:
        return None
    samples = tuple(sums[column].to_numpy(float) for column in columns)
    return bootstrap_interval(samples, _difference, paired=True, confidence=confidence, seed=seed)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact McNemar test (1947): the two-sided p-value that two models are right equally often.

    Args:
        only_a: questions that A alone answers right.
        only_b: questions that B alone answers right.
    """
    if only_a + only_b == 0:
        return 1.0
    return float(cast(Any, stats).binomtest(only_a, only_a + only_b, 0.5).pvalue)


def _ratio(got: Any, of: Any, axis: int = -1) -> Any:
    # Nothing got of nothing is nothing, as an F1 without a label has it.
    return np.sum(got, axis=axis) / np.maximum(np.sum(of, axis=axis), 1e-12)


def _difference(got_a: Any, of_a: Any, got_b: Any, of_b: Any, axis: int = -1) -> Any:
    return _ratio(got_b, of_b, axis) - _ratio(got_a, of_a, axis)

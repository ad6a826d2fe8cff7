"""Confidence intervals of accuracies."""

from __future__ import annotations

from typing import Any, cast

from scipy import stats  # pyright: ignore[reportMissingTypeStubs]


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

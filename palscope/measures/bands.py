"""Means over clips, with confidence bands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
from scipy import stats  # pyright: ignore[reportMissingTypeStubs]


def mean_band(
    tables: Iterable[pd.DataFrame],
    by: Sequence[str],
    *,
    value: str = "mass",
    confidence: float = 0.95,
    limits: tuple[float | None, float | None] = (0, 1),
) -> pd.DataFrame:
    """Mean over clips, of a share between 0 and 1 by default, with Student's t interval of it.

    Each table is one clip: what `by` leaves open in it (heads, rows) is averaged first, so that the
    band says how much clips differ.

    Args:
        limits: what a value can be at least and at most; the interval ends there.

    Returns:
        `by…, n, mean, low, high`, one row a group; `n` tables have the group. With one table alone
        nothing is known of the spread: `low` and `high` are NaN.

    Raises:
        ValueError: there is no table.
    """
    means = [
        cast(Any, table).groupby(list(by), observed=True)[value].mean().rename(index)
        for index, table in enumerate(tables)
    ]
    if not means:
        raise ValueError("mean_band needs one table at least, one for each clip.")
    wide: Any = pd.concat(means, axis=1).sort_index()
    n = wide.count(axis=1).to_numpy()
    mean = wide.mean(axis=1).to_numpy()
    half = np.full(len(n), np.nan)
    many = n > 1
    error = wide[many].std(axis=1, ddof=1).to_numpy() / np.sqrt(n[many])
    half[many] = cast(Any, stats).t.ppf((1 + confidence) / 2, n[many] - 1) * error
    low, high = np.clip(mean - half, *limits), np.clip(mean + half, *limits)
    out = pd.DataFrame({"n": n, "mean": mean, "low": low, "high": high}, index=wide.index)
    return out.reset_index()


def bootstrap_interval(
    samples: Sequence[Any],
    statistic: Callable[..., Any],
    *,
    paired: bool = False,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic; NaN where a sample has fewer than two values.

    Args:
        samples: one or more; `paired` ones are resampled together.
        statistic: takes the samples and `axis`.
    """
    if min(map(len, samples)) < 2:
        return float("nan"), float("nan")
    interval = (
        cast(Any, stats)
        .bootstrap(
            tuple(samples),
            statistic,
            paired=paired,
            n_resamples=resamples,
            confidence_level=confidence,
            method="percentile",
            rng=seed,
        )
        .confidence_interval
    )
    return float(interval.low), float(interval.high)

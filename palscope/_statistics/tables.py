"""Means with their intervals as columns of tables, or the values where clips are too few."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from palscope._statistics.intervals import FEWEST, Interval, mean_intervals
from palscope._statistics.shares import wilson

ROUNDING = 1e-3
"""By so much a sum of shares may exceed 1."""


@dataclass(frozen=True)
class Values:
    """One value a clip, in place of an interval; none where there is one.

    In a CSV the values stand behind each other: "0.12 0.5 -1.3".
    """

    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        return " ".join(f"{number:.4g}" for number in self.numbers)

    __repr__ = __str__

    @classmethod
    def unless(cls, interval: Interval, values: Any) -> Values:
        """The values, where there is no interval and they are few enough to be looked at."""
        numbers = tuple(float(value) for value in values if value == value)
        # One value is its own mean, which stands there anyway.
        return cls(numbers) if not interval.known and 1 < len(numbers) < FEWEST else cls()


def storable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `Values` as lists of numbers, as Parquet can hold them."""
    held: Any = table
    columns: dict[str, list[Any]] = {str(name): list(held[name]) for name in held}
    lists: dict[str, Any] = {
        name: [list(each.numbers) for each in column]
        for name, column in columns.items()
        if column and isinstance(column[0], Values)
    }
    return table.assign(**lists)


def interval_columns(interval: Interval, values: Any, name: str = "") -> dict[str, Any]:
    """`low`, `high` and `values` of a row; or, with a name, `NAME_low` and so on.

    Args:
        interval: of the row's number.
        values: one a clip, kept where there is no interval.
        name: begins the columns' names.
    """
    before = f"{name}_" if name else ""
    return {
        f"{before}low": interval.low,
        f"{before}high": interval.high,
        f"{before}values": Values.unless(interval, values),
    }


def shown(row: Any, spec: str = ".4g", scale: float = 1.0) -> str:
    """A row's interval as printed, "[0.1, 0.3]"; where there is none, its values, or "".

    Args:
        row: with `low`, `high` and, if they are kept, `values`.
        spec: the format of a number.
        scale: what numbers are multiplied by, such as 100 for percentages.
    """
    if row["low"] == row["low"]:
        return f"[{scale * row['low']:{spec}}, {scale * row['high']:{spec}}]"
    numbers = row["values"].numbers if "values" in row else ()
    return f"(each: {', '.join(f'{scale * n:{spec}}' for n in numbers)})" if numbers else ""


def mean_row(
    values: Any,
    name: str,
    *,
    confidence: float = 0.95,
    limits: tuple[float | None, float | None] = (None, None),
) -> dict[str, Any]:
    """`NAME, low, high, values, n` of one number a clip: its mean and interval, as `mean_band`.

    A NaN counts as no value.
    """
    whole = banded(np.asarray(values, dtype=np.float64)[None], confidence, limits)
    row = {key: each[0] for key, each in whole.items()}
    return {name: row["mean"], **{key: row[key] for key in ("low", "high", "values", "n")}}


def mean_band(
    tables: Iterable[pd.DataFrame],
    by: Sequence[str],
    *,
    value: str = "mass",
    confidence: float = 0.95,
    limits: tuple[float | None, float | None] = (0, 1),
) -> pd.DataFrame:
    """Mean over clips, of a share between 0 and 1 by default, with its interval.

    Each table is one clip: what `by` leaves open in it (heads, rows) is averaged first, so that the
    interval says how much clips differ. It holds at each place by itself, not for a whole curve.

    Args:
        tables: one a clip. A NaN counts as no value.
        by: the columns that name a place.
        value: the column to average.
        confidence: of the intervals.
        limits: what a value can be at least and at most; the interval ends there. Where they are 0
            and 1 and every clip has one of the two, the interval is Wilson's.

    Returns:
        `by…, n, mean, low, high, values`, one row a place; `n` clips have a value there (if none,
        the mean is NaN). Of too few clips (`mean_intervals`) `low` and `high` are NaN, and `values`
        has each clip's.

    Raises:
        ValueError: there is no table, or a clip's value lies outside of the limits.
    """
    means = [
        cast(Any, table).groupby(list(by), observed=True)[value].mean().rename(index)
        for index, table in enumerate(tables)
    ]
    if not means:
        raise ValueError("mean_band needs one table at least, one for each clip.")
    wide: Any = pd.concat(means, axis=1).sort_index()
    _check_within(wide.to_numpy(float), value, limits)
    out = pd.DataFrame(banded(wide.to_numpy(float), confidence, limits), index=wide.index)
    return out.reset_index()


def _check_within(
    values: Float[np.ndarray, "places clips"],
    name: str,
    limits: tuple[float | None, float | None],
) -> None:
    """An interval that ends at limits which its mean is beyond would be nonsense."""
    low = -np.inf if limits[0] is None else limits[0] - ROUNDING
    high = np.inf if limits[1] is None else limits[1] + ROUNDING
    outside = values[(values < low) | (values > high)]
    if len(outside):
        raise ValueError(
            f"{name!r} has values such as {outside[0]:g}, outside of the limits {limits}; give "
            "those that it has, limits=(None, None) where it has none."
        )


def banded(
    values: Float[np.ndarray, "places clips"],
    confidence: float = 0.95,
    limits: tuple[float | None, float | None] = (None, None),
) -> dict[str, Any]:
    """`n, mean, low, high, values` of each place; NaN where a clip has no value."""
    low, high = mean_intervals(values, confidence=confidence)
    if limits != (None, None):
        low, high = (np.clip(end, *limits) for end in (low, high))
    known = ~np.isnan(values)
    if limits == (0, 1):
        single = (np.isin(values, (0, 1)) | ~known).all(-1) & known.any(-1)
        for place in single.nonzero()[0]:
            got, of = np.nansum(values[place]), known[place].sum()
            low[place], high[place] = wilson(float(got), float(of), confidence=confidence)
    rows = zip(values, low, high, strict=True)
    return {
        "n": known.sum(-1),
        "mean": np.nansum(values, axis=-1) / np.where(known.any(-1), known.sum(-1), np.nan),
        "low": low,
        "high": high,
        "values": [Values.unless(Interval(a, b), each) for each, a, b in rows],
    }

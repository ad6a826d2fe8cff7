"""Means over clips: their intervals as columns, or the values where clips are few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import FEWEST, mean_band, mean_interval, mean_row, shown, storable, wilson


def clip(*masses: float, layer: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"layer": layer, "head": range(len(masses)), "mass": masses})


def test_a_band_is_of_the_clips_own_means() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.6, FEWEST)
    band = mean_band([clip(v - 0.1, v + 0.1) for v in values], ["layer"])
    low, high = mean_interval(values)
    row = band.iloc[0]
    assert (row["n"], row["mean"]) == (FEWEST, pytest.approx(values.mean()))
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["values"].numbers == ()


def test_values_beyond_the_limits_are_refused() -> None:
    changes = [clip(-15.0), clip(-12.5)]
    with pytest.raises(ValueError, match=r"'mass' has values such as -15.*limits=\(None, None\)"):
        mean_band(changes, ["layer"])
    assert mean_band(changes, ["layer"], limits=(None, None))["mean"].tolist() == [-13.75]
    mean_band([clip(1.0002)], ["layer"])  # rounding


def test_of_few_clips_the_values_themselves_are_given() -> None:
    row = mean_band([clip(0.2, 0.4), clip(0.5, 0.5), clip(0.1, 0.1)], ["layer"]).iloc[0]
    assert np.isnan([row["low"], row["high"]]).all()
    assert row["values"].numbers == pytest.approx((0.3, 0.5, 0.1))
    # as a file has them
    assert mean_row([0.25, -1.5], "effect")["values"].__str__() == "0.25 -1.5"


def test_of_clips_that_are_right_or_wrong_the_interval_is_wilson_s() -> None:
    row = mean_band([clip(1.0)] * 4, ["layer"]).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(wilson(4, 4))
    # an effect that happens to be 1 everywhere is no share
    assert np.isnan(mean_row([1.0] * 4, "effect")["low"])


def test_shares_stay_between_zero_and_one() -> None:
    values = np.append(np.full(FEWEST - 1, 0.01), 0.9)
    band = mean_band([clip(value) for value in values], ["layer"])
    assert band["low"].iloc[0] == 0 and band["high"].iloc[0] < 1
    free = mean_band([clip(value) for value in values], ["layer"], limits=(None, None))
    assert free["low"].iloc[0] < 0


def test_a_place_that_a_clip_lacks_is_not_counted_as_nothing() -> None:
    band = mean_band([clip(0.2), clip(0.4), clip(0.8, layer=1), clip(np.nan, layer=2)], ["layer"])
    assert band["n"].tolist() == [2, 1, 0]
    assert band["mean"].tolist() == pytest.approx([0.3, 0.8, np.nan], nan_ok=True)


def test_no_clip_is_an_error() -> None:
    with pytest.raises(ValueError, match="one table at least"):
        mean_band([], ["layer"])


def test_what_is_printed_is_the_interval_or_the_values() -> None:
    assert shown(mean_row([0.25, 0.5], "effect"), ".0f", 100) == "(each: 25, 50)"
    assert shown({"low": 0.5101, "high": 1.0}, ".2f") == "[0.51, 1.00]"
    assert shown({"low": float("nan"), "high": float("nan")}) == ""


def test_values_are_lists_in_parquet(tmp_path: Path) -> None:
    table = mean_band([pd.DataFrame({"at": [0], "mass": [m]}) for m in (0.25, 0.5, 0.125)], ["at"])
    storable(table).to_parquet(tmp_path / "band.parquet")
    read: Any = pd.read_parquet(tmp_path / "band.parquet")["values"]
    assert read[0].tolist() == [0.25, 0.5, 0.125]
    assert str(table["values"][0]) == "0.25 0.5 0.125"  # as a CSV has them; the table keeps its own

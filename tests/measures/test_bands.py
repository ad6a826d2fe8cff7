"""Means over clips and their confidence bands."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palscope.measures import mean_band


def clip(*masses: float, layer: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"layer": layer, "head": range(len(masses)), "mass": masses})


def test_the_band_is_student_s_interval_of_the_clips_means() -> None:
    values = [0.2, 0.3, 0.5, 0.45]
    band = mean_band([clip(v - 0.1, v + 0.1) for v in values], ["layer"])
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert band.to_dict("records") == [
        {"layer": 0, "n": 4, "mean": pytest.approx(np.mean(values)), "low": pytest.approx(low),
         "high": pytest.approx(high)}
    ]  # fmt: skip


def test_the_band_holds_the_truth_as_often_as_it_says() -> None:
    trials = np.random.default_rng(0).normal(0.5, 0.05, (6, 1000))
    band = mean_band(
        [pd.DataFrame({"trial": range(1000), "mass": row}) for row in trials], ["trial"]
    )
    held = (band["low"] <= 0.5) & (band["high"] >= 0.5)
    assert 0.93 < held.mean() < 0.97


def test_shares_stay_between_zero_and_one() -> None:
    band = mean_band([clip(0.0), clip(0.9)], ["layer"])
    assert band["low"].iloc[0] == 0 and band["high"].iloc[0] == 1


def test_one_clip_has_no_band_and_a_missing_group_does_not_count() -> None:
    band = mean_band([clip(0.2), clip(0.4), clip(0.8, layer=1)], ["layer"])
    assert band["n"].tolist() == [2, 1]
    assert band["mean"].tolist() == pytest.approx([0.3, 0.8])
    assert band["low"].isna().tolist() == [False, True]


def test_no_clip_is_an_error() -> None:
    with pytest.raises(ValueError, match="one table at least"):
        mean_band([], ["layer"])


def test_what_is_no_share_keeps_its_interval() -> None:
    tables = [pd.DataFrame({"layer": [0], "mass": [value]}) for value in (1.0, 5.0)]
    band = mean_band(tables, ["layer"], limits=(0, None))
    assert band["mean"].item() == 3 and band["low"].item() == 0 and band["high"].item() > 5

"""The steps between a measure's table and a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from palscope.plots import _tables as plot_tables

tables: Any = plot_tables


def test_slices_share_out_tokens_of_any_length(table: Any) -> None:
    binned = tables.head_time_bins(table, "summary", bins=2)
    one = binned[(binned["layer"] == 1) & (binned["head"] == 0)]
    assert one[["start_s", "end_s"]].to_numpy().tolist() == [[0, 0.5], [0.5, 1]]
    # tokens at 0 to 0.3, 0.3 to 0.6, 0.6 to 0.9, 0.9 to 1: two thirds of the second come first
    np.testing.assert_allclose(one["mass"], [0.05 * (1 + 2 / 3), 0.05 * (1 / 3 + 2)])


def test_no_more_slices_than_tokens(table: Any) -> None:
    assert tables.head_time_bins(table, "summary")["start_s"].nunique() == 4


def test_slices_of_several_queries_are_refused(table: Any) -> None:
    table.loc[table["layer"] == 2, "query"] = 31
    with pytest.raises(ValueError, match="one row, query and clip"):
        tables.head_time_bins(table, "frames")
    with pytest.raises(ValueError, match="one row and query"):
        tables.key_means(table.assign(token=""))


def test_key_means_count_layers_that_do_not_see_a_key(table: Any) -> None:
    keys = tables.key_means(table.assign(token=""))
    assert keys["mass"].sum() == pytest.approx(
        (table["mass"].sum()) / 6
    )  # three layers of two heads
    fourth = keys[(keys["pathway"] == "frames") & (keys["start_s"] == 0.4)]
    assert fourth["mass"].item() == pytest.approx((3 * 0.04 + 1) / 6)

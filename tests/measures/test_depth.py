"""Depth of mass on made-up tables whose peaks are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope.errors import PalscopeError
from palscope.measures._depth import depth_of_mass


def table(courses: dict[str, list[float]], pathway: str = "frames") -> pd.DataFrame:
    """Two heads around each clip's course over layers, and the rest to text."""
    rows = []
    for path, course in courses.items():
        for layer, mass in enumerate(course):
            for head, share in ((0, 0.5), (1, 1.5)):
                named = {"path": path, "layer": layer, "head": head}
                rows.append({**named, "pathway": pathway, "mass": share * mass})
                rows.append({**named, "pathway": "text", "mass": 1 - share * mass})
    return pd.DataFrame(rows)


def test_the_peak_and_the_centre_of_a_known_course() -> None:
    found = depth_of_mass(table({"a": [0, 0.1, 0.3, 0], "b": [0, 0.3, 0.5, 0]}))
    assert len(found) == 1
    row = found.iloc[0]
    assert (row["pathway"], row["n"], row["peak"]) == ("frames", 2, 2)
    # Two clips are too few for intervals: each has its own.
    assert np.isnan([row["peak_low"], row["peak_high"], row["centre_low"]]).all()
    assert row["peak_values"].numbers == (2, 2)
    assert row["peak_mass"] == pytest.approx(0.4)
    assert row["mass"] == pytest.approx(0.15)
    assert row["centre"] == pytest.approx((1 * 0.2 + 2 * 0.4) / 0.6)
    own = ((1 * 0.1 + 2 * 0.3) / 0.4, (1 * 0.3 + 2 * 0.5) / 0.8)
    assert row["centre_values"].numbers == pytest.approx(own)


def test_clips_that_disagree_widen_the_interval() -> None:
    courses = {f"early {n}": [0.6, 0, 0.0] for n in range(10)}
    courses |= {f"late {n}": [0.0, 0, 0.5] for n in range(10)}
    row = depth_of_mass(table(courses)).iloc[0]
    assert row["peak"] == 0 and (row["peak_low"], row["peak_high"]) == (0, 2)
    assert row["centre_low"] < row["centre"] < row["centre_high"]


def test_groups_and_pathways_stay_apart() -> None:
    both = pd.concat(
        [
            table({"a": [0.5, 0.1]}).assign(domain="speech"),
            table({"b": [0.1, 0.5]}).assign(domain="music"),
            table({"b": [0.4, 0.2]}, "summary").assign(domain="music"),
        ]
    )
    found = depth_of_mass(both, ["domain"]).set_index(["domain", "pathway"])
    assert found["peak"].to_dict() == {
        ("speech", "frames"): 0,
        ("music", "frames"): 1,
        ("music", "summary"): 0,
    }
    assert found[["peak_low", "centre_high"]].isna().all(axis=None)  # one clip each


def test_what_is_never_seen_has_no_depth() -> None:
    row = depth_of_mass(table({"a": [0, 0], "b": [0, 0]})).iloc[0]
    assert np.isnan(row["peak"]) and row["mass"] == 0
    with pytest.raises(PalscopeError, match="no stream"):
        depth_of_mass(table({"a": [0.5]}, "text"))

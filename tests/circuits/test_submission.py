"""Scores from a file: one of each edge, or a sentence that says which is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._circuits.submission import submitted
from palscope.errors import PalscopeError


def written(folder: Path, **changes: Any) -> Path:
    rows = {"pair": ["a", "b", "a", "a"], "edge": [2, 0, 0, 1], "score": [0.5, 9.0, -1.0, 0.25]}
    path = folder / "mine.parquet"
    table: Any = pd.DataFrame(rows | changes)
    table.to_parquet(path)
    return path


def test_scores_stand_at_their_edges_numbers(tmp_path: Path) -> None:
    np.testing.assert_array_equal(submitted(written(tmp_path), "a", 3), [-1.0, 0.25, 0.5])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pair": ["b"] * 4}, "no scores of a; it has some of b"),
        ({"edge": [2, 0, 2, 1]}, "scores 2 different edges of a in 3 rows; its graph has 3"),
        ({"edge": [3, 0, 0, 1]}, "from 0 to 2"),
        ({"score": [np.nan, 0, 0, 0]}, "scores edge 2 of a as nan"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, changes: Any, told: str) -> None:
    with pytest.raises(PalscopeError, match=told):
        submitted(written(tmp_path, **changes), "a", 3)


def test_files_that_are_no_submissions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"pair": ["a"], "edge": [0]}).to_parquet(path)
    with pytest.raises(PalscopeError, match="lacks the column 'score'"):
        submitted(path, "a", 1)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    for each in (broken, tmp_path / "nowhere.parquet"):
        with pytest.raises(PalscopeError, match="cannot be read as parquet"):
            submitted(each, "a", 1)

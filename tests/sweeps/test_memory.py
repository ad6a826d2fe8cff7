"""A run in memory does what a stored one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palscope._sweeps.memory import Memory
from palscope._sweeps.store import Run
from palscope.errors import AudioError, PalscopeError


def measure(item: str) -> pd.DataFrame:
    """Two rows, with an index of their own."""
    if "bad" in item:
        raise AudioError(f"{item} is bad.")
    return pd.DataFrame({"layer": [0, 1], "effect": [0.5, float(len(item))]}, index=[7, 7])


def over(store: Run | Memory, items: list[str], **changes: Any) -> Any:
    given = {"table": "effects", "key": str, "item": "clip", "keys": ["layer"]} | changes
    return store.over(items, measure, **given)


def stores(folder: Path) -> tuple[Run, Memory]:
    return Run.open(folder, {}, resume=False), Memory()


def test_both_give_the_same_rows_and_reasons(tmp_path: Path) -> None:
    stored, kept = (over(store, ["b", "bad", "aa", "b"]) for store in stores(tmp_path))
    assert stored.left_out == kept.left_out == {"bad": "bad is bad."}
    assert list(stored.rows) == list(kept.rows) == ["b", "aa"]
    for item, read in stored.rows.items():
        pd.testing.assert_frame_equal(read(), kept.rows[item]())


def test_both_refuse_the_same(tmp_path: Path) -> None:
    for store in stores(tmp_path):
        with pytest.raises(PalscopeError, match=r"none of 2 could be .* for effects; .* bad1"):
            over(store, ["bad1", "bad2"])
        with pytest.raises(PalscopeError, match="nothing to measure for effects"):
            over(store, [])
        with pytest.raises(PalscopeError, match="two different items for effects are called 'a'"):
            over(store, ["a1", "a2"], key=lambda item: item[0], content=str)
        with pytest.raises(ValueError, match="two rows are named alike"):
            over(store, ["a"], keys=[])


def test_what_is_kept_cannot_be_changed() -> None:
    """Visitors share it."""
    kept = over(Memory(), ["a"])
    mine = kept.rows["a"]()
    mine["effect"] = 0.0
    assert kept.rows["a"]()["effect"].tolist() == [0.5, 1.0]

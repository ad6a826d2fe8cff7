"""Comparing runs: differences that were planted are found, with their paired intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._routing import Route
from palscope._statistics import mean_interval
from palscope._sweeps.compare import (
    ItemRows,
    difference_summary,
    joined,
    record_differences,
    shared_tables,
)
from palscope._sweeps.store import Run, read_record
from palscope.errors import PalscopeError

KEYS = ["layer", "pathway"]


def rows(shift: float = 0.0, pathways: tuple[str, ...] = ("text", "frames")) -> pd.DataFrame:
    layers, names = [0, 0, 1, 1], list(pathways) * 2
    table = pd.DataFrame({"layer": layers, "pathway": pd.Categorical(names, categories=pathways)})
    return table.assign(effect=[0.0, 0.1, 0.2, 0.3 + shift], answer="dog")


def test_rows_are_joined_by_their_keys() -> None:
    a, b = rows(), rows(0.5, ("text", "summary")).iloc[::-1]
    table = joined(a, b, KEYS)
    assert list(table) == [*KEYS, "effect_a", "effect_b", "effect_difference"]
    assert table["pathway"].tolist() == ["text", "text"] and table["layer"].tolist() == [0, 1]
    shifted = joined(a, rows(0.5).iloc[::-1], KEYS)
    np.testing.assert_allclose(shifted["effect_difference"], [0, 0, 0, 0.5])
    np.testing.assert_allclose(shifted["effect_b"] - shifted["effect_a"], [0, 0, 0, 0.5])


def test_items_of_one_row_need_no_keys() -> None:
    a, b = pd.DataFrame({"score": [1.0]}), pd.DataFrame({"score": [3.0]})
    assert joined(a, b, []).to_dict("records") == [
        {"score_a": 1, "score_b": 3, "score_difference": 2}
    ]


def test_the_summary_averages_items_and_pairs_them() -> None:
    shifts = {"one": 0.4, "two": 0.8, "three": 1.2}
    items = [(name, joined(rows(), rows(shift), KEYS)) for name, shift in shifts.items()]
    table: Any = difference_summary(items, KEYS)
    assert set(table["by"]) == {"all", "layer", "pathway"}
    total = table[table["by"] == "all"].iloc[0]
    differences = np.array([0.1, 0.2, 0.3])  # one row of four is shifted
    assert total["difference"] == pytest.approx(0.2) and total["n"] == 3
    assert total["mean_b"] - total["mean_a"] == pytest.approx(0.2)
    assert np.isnan(total["low"]) and sorted(total["values"].numbers) == pytest.approx(differences)
    layers = table[table["by"] == "layer"].set_index(["at", "group"])["difference"]
    assert layers.to_dict() == pytest.approx(
        {("0", "frames"): 0, ("0", "text"): 0, ("1", "frames"): 0.8, ("1", "text"): 0}
    )
    pathways = table[table["by"] == "pathway"].set_index("at")["difference"]
    assert pathways.to_dict() == pytest.approx({"frames": 0.4, "text": 0})


def test_many_items_have_an_interval() -> None:
    shifts = np.random.default_rng(0).normal(1, 0.5, 30)
    items = [(str(at), joined(rows(), rows(shift), KEYS)) for at, shift in enumerate(shifts)]
    total = difference_summary(items, KEYS).iloc[0]
    assert (total["low"], total["high"]) == pytest.approx(mean_interval(shifts / 4))


def test_what_one_run_lacks_counts_in_neither_mean() -> None:
    a, b = rows(), rows(1.0)
    b.loc[b["layer"] == 0, "effect"] = np.nan
    items = [(str(at), joined(a, b, KEYS)) for at in range(3)]
    total = difference_summary(items, KEYS).iloc[0]
    assert total["mean_b"] - total["mean_a"] == pytest.approx(total["difference"])


def test_one_item_has_no_interval() -> None:
    table = difference_summary([("one", joined(rows(), rows(1), KEYS))], KEYS)
    assert table["low"].isna().all() and table["difference"].notna().all()


def test_records_differ_where_they_do() -> None:
    a: dict[str, Any] = {
        "config": {"model": "demo/pal", "token": 0},
        "seed": 0,
        "command": "x",
        "seconds": 1,
    }
    b: dict[str, Any] = {"config": {"model": "demo/lal", "token": 0}, "seed": 0, "seconds": 2}
    b["route"] = Route.lal(30).to_dict()
    table = record_differences(a, b)
    assert table.to_dict("records") == [
        {"field": "config.model", "a": "demo/pal", "b": "demo/lal"},
        {"field": "route", "a": None, "b": "frames:P30"},
    ]
    assert len(record_differences(a, a)) == 0


def store(folder: Path, table: str = "effects", keys: list[str] = KEYS) -> dict[str, Any]:
    run = Run.open(folder, {"config": {}}, resume=True)
    run.over(["x", "y"], lambda item: rows(len(item)), table=table, key=str, keys=keys)
    return read_record(folder)


def test_tables_that_both_runs_have(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    one, two = store(a), store(b)
    pair = shared_tables(a, one, b, two)["effects"]
    assert (pair.item, pair.keys) == ("pair", KEYS)
    stored = ItemRows(pair.b, "pair")
    assert list(stored.groups) == ["x", "y"]
    assert stored["y"]["pair"].tolist() == ["y"] * 4
    with pytest.raises(PalscopeError, match=r"effects.*other.*share no table"):
        shared_tables(a, one, c, store(c, "other"))
    other = store(c, "effects", [*KEYS, "answer"])
    with pytest.raises(PalscopeError, match="are named by"):
        shared_tables(a, one, c, other)
    pair.b.unlink()
    with pytest.raises(PalscopeError, match=r"effects\.parquet is missing"):
        shared_tables(a, one, b, two)

"""The command `analyses/compare.py`, on runs of a cheap measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palscope._sweeps.store import Run
from tests.analyses.conftest import call, open_script


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: call(open_script("compare"), monkeypatch, *arguments)


def make(folder: Path, shift: float, items: list[str], table: str = "effects") -> Path:
    run = Run.open(folder, {"config": {"shift": shift}, "seed": 0}, resume=False)

    def measure(item: str) -> pd.DataFrame:
        extra = shift * (1 if item == "x" else 3)
        return pd.DataFrame({"layer": [0, 1], "effect": [0.0, 1.0 + extra], "word": ["a", "b"]})

    run.over(items, measure, table=table, key=str, keys=["layer"])
    run.finish()
    return folder


def test_two_runs(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = make(tmp_path / "a", 0, ["w", "x", "y"])
    b = make(tmp_path / "b", 0.5, ["y", "x", "z"])
    out = tmp_path / "out"
    assert command(a, b, "--out", out) == 0
    said = capsys.readouterr().out
    assert "config.shift: 0 in A, 0.5 in B" in said
    assert "4 rows of 2 items are in both; 1 items in A alone, 1 in B alone" in said
    assert "effect: A 0.5, B 1, B less A 0.5 (each: 0.25, 0.75) (n = 2)" in said
    table = pd.read_parquet(out / "effects.parquet")
    assert table["pair"].tolist() == ["x", "x", "y", "y"]
    assert table["effect_difference"].tolist() == [0, 0.5, 0, 1.5]
    summary = pd.read_csv(out / "effects_effect.csv")
    assert summary["by"].tolist() == ["all", "layer", "layer"]
    assert summary["difference"].tolist() == [0.5, 0, 1]
    for ending in ("html", "png", "svg"):
        assert (out / f"effects_effect.{ending}").stat().st_size > 1000
    assert pd.read_csv(out / "differences.csv")["field"].tolist() == ["config.shift"]
    record = json.loads((out / "run.json").read_text())
    compared = {"effects": {"items": 2, "only_a": 1, "only_b": 1, "rows": 4}}
    assert record["finished"] and record["compared"] == compared


def test_a_run_with_itself(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make(tmp_path / "a", 0, ["x", "y"])
    assert command(a, a, "--out", tmp_path / "out") == 0
    assert "The settings agree" in capsys.readouterr().out
    assert (pd.read_parquet(tmp_path / "out" / "effects.parquet")["effect_difference"] == 0).all()


def test_what_cannot_be_compared_ends_in_one_line(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = make(tmp_path / "a", 0, ["x"]), make(tmp_path / "b", 0, ["x"], "masses")
    c = make(tmp_path / "c", 0, ["z"])
    for other, message in (
        (tmp_path / "nowhere", "holds no run.json"),
        (b, "share no table"),
        (c, "no row of effects is in both"),
        (a, "holds a run already"),  # --out, from the attempt before
    ):
        assert command(a, other, "--out", tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert message in said and "Traceback" not in said

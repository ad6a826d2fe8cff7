"""The command `analyses/logit_lens.py`, on a tiny checkpoint and short clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests import tiny
from tests.analyses.conftest import call, open_script


def command(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    return call(open_script(name), monkeypatch, *arguments)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = ["path,domain,label,split"]
    for label in ("dog", "rain"):
        for number in range(2):
            name = f"{label}{number}.wav"
            samples = 0.1 * rng.normal(size=9600)
            samples[-1600:] *= 3  # the loudest moment, in no window
            soundfile.write(tmp_path / name, samples, 16_000)
            rows.append(f"{name},sound,{label},{'train' if number else 'validation'}")
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_lens_of_a_manifest(
    checkpoint: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    given = ("--model", checkpoint, "--manifest", manifest, "--split", "validation", "--out", out)
    assert command("logit_lens", monkeypatch, *given) == 0
    table = pd.read_parquet(out / "logit_lens.parquet")
    assert sorted(table["clip"].unique()) == ["dog0.wav", "rain0.wav"]
    places: Any = table.groupby("place")["depth"].agg(lambda depths: sorted(set(depths)))
    assert places.to_dict() == {
        "last token": list(range(tiny.LAYERS + 1)),
        "summary": list(range(tiny.LAYERS + 1)),
        "written by frames": [1, 3],
        "written by summary": list(range(1, tiny.LAYERS + 1)),
    }
    assert table["chance"].eq(0.5).all() and table["leads"].between(0, 1).all()
    for ending in ("html", "png", "svg", "csv"):
        assert (out / f"readable_by_depth.{ending}").stat().st_size > 100
    starts = pd.read_csv(out / "readable_from.csv")
    assert set(starts["place"]) == set(table["place"])
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["finished"] and record["config"]["split"] == "validation"


def test_leakage_of_a_manifest(
    checkpoint: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    given = ("--model", checkpoint, "--manifest", manifest, "--windows", 2, "--out", out)
    assert command("leakage", monkeypatch, *given) == 0
    assert "4 clip(s); 0 window(s) moved the loudest bin" in capsys.readouterr().out
    table = pd.read_parquet(out / "leakage.parquet")
    windows: Any = table.groupby("clip")["window_s"].agg(lambda starts: sorted(set(starts)))
    assert windows.tolist() == [[0.1, 0.2]] * 4
    for stem in ("leakage_over_time", "leaked_by_depth"):
        for ending in ("html", "png", "svg", "csv"):
            assert (out / f"{stem}.{ending}").stat().st_size > 100
    leaked = pd.read_csv(out / "leaked_by_depth.csv")
    assert leaked["n"].eq(4).all() and leaked["mean"].between(0, 1).all()
    mel = leaked[leaked["site"] == "mel"]["mean"].item()
    assert mel < leaked[leaked["site"] == "encoder_output"]["mean"].item()
    widths = pd.read_csv(out / "widths.csv")
    assert set(widths["width"]) == {"within50_s", "within90_s", "half_maximum_s", "reach_s"}
    assert command("leakage", monkeypatch, *given) == 2  # holds a run already


def test_wrong_input_ends_in_one_line(
    checkpoint: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("logit_lens", "leakage"):
        for changes, named in (
            (("--manifest", tmp_path / "nowhere.csv"), "nowhere.csv"),
            (("--manifest", manifest, "--split", "test"), "give at least one"),
        ):
            given = ("--model", checkpoint, "--out", tmp_path / f"{name}-{named[:4]}")
            assert command(name, monkeypatch, *given, *changes) == 2
            said = capsys.readouterr().err
            assert named in said and "Traceback" not in said

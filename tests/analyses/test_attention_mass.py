"""Attention mass of clips, on tiny models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._routing import Route
from palscope.analyses import analysis_of, main
from tests import tiny


def test_one_clip(analyse: Callable[..., Path], manifest: Path) -> None:
    clip = manifest.parent / "sound0.wav"
    out = analyse("attention_mass", "--audio", clip, "--question", "what?")
    table = pd.read_parquet(out / "attention_mass.parquet")
    sums: Any = table.groupby(["layer", "head"])["mass"].sum()
    assert len(sums) == tiny.LAYERS * 4
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["question"] == "what?"
    assert Route.from_dict(record["route"]) == Route.pal(tiny.LAYERS, [0, 2])
    assert len(record["weights"]["checkpoint"]["sha256"]) == 64
    assert record["versions"]["torch"] and record["seed"] == 0
    assert list(record["data"]) == [str(clip)] and len(record["data"][str(clip)]) == 64
    assert record["finished"] and record["seconds"] > 0


def test_clips_that_cannot_be_read_are_counted(
    analyse: Callable[..., Path], manifest: Path, tmp_path: Path, capsys: Any
) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for name in ("sound0.wav", "speech1.wav"):
        shutil.copy(manifest.parent / name, sounds)
    (sounds / "broken.wav").write_bytes(b"RIFF no sound")
    out = analyse("attention_mass", "--audio", sounds)
    said = capsys.readouterr()
    assert "2 clip(s) measured, 1 left out" in said.out and "broken.wav" in said.err
    band = pd.read_csv(out / "mass_by_layer.csv")
    unseen = band["mean"].isna()  # layers that the route keeps a stream from, not layers at 0
    assert (band["n"][~unseen] == 2).all() and (band["n"][unseen] == 0).all()
    assert band["low"].isna().all() and band["values"][~unseen].str.contains(" ").all()
    pictures = {"time_00_sound0.png", "time_01_speech1.png", "time.png"}
    assert pictures <= {path.name for path in out.iterdir()}
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    left_out = record["tables"]["attention_mass"]["left_out"]
    assert [Path(each["path"]).name for each in left_out] == ["broken.wav"]


def test_models_side_by_side_and_domains_apart(
    checkpoint: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    another, out = tmp_path / "another", tmp_path / "out"
    shutil.copytree(checkpoint, another)
    rest = ["--audio", str(manifest), "--n", "1", "--out", str(out)]
    analysis = analysis_of("attention_mass")
    assert main(analysis, words=["--model", str(checkpoint), str(another), *rest]) == 0
    bands = pd.read_csv(out / "mass_by_depth.csv")
    assert set(zip(bands["model"], bands["domain"], strict=True)) == {
        (model, domain) for model in (checkpoint.name, "another") for domain in ("sound", "speech")
    }
    assert (bands["n"] == bands["mean"].notna()).all() and (bands["n"] == 1).any()
    sums = pd.read_parquet(out / "another" / "mass_by_pathway.parquet")
    assert sums.groupby("path")["domain"].first().tolist() == ["sound", "speech"]
    np.testing.assert_allclose(sums.groupby(["path", "layer", "head"])["mass"].sum(), 1, atol=1e-5)
    depth = pd.read_csv(out / "another" / "depth.csv")
    assert set(depth["domain"]) == {"sound", "speech"} and (depth["peak"] < tiny.LAYERS).all()
    assert json.loads((out / "another" / "run.json").read_text())["config"]["model"] == str(another)
    twice = ["--model", str(another), str(another / ".." / "another"), *rest]
    assert main(analysis, words=twice) == 2
    assert "called alike" in capsys.readouterr().err

"""The command `analyses/attention_mass.py`, on a tiny checkpoint and short clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from palscope._routing import Route
from tests import tiny
from tests.analyses.conftest import call, open_script


@pytest.fixture
def script() -> Any:
    return open_script("attention_mass")


@pytest.fixture
def command(script: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*arguments: object) -> int:
        return call(script, monkeypatch, *arguments)

    return run


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("one", 0.5), ("two", 0.7)):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.normal(size=int(16000 * seconds)), 16000)
    return folder


def test_one_clip(command: Any, checkpoint: Path, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clip = sounds / "one.wav"
    assert command("--model", checkpoint, "--audio", clip, "--question", "what?", "--out", out) == 0
    table = pd.read_parquet(out / "attention_mass.parquet")
    sums: Any = table.groupby(["layer", "head"])["mass"].sum()
    assert len(sums) == tiny.LAYERS * 4
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    for stem in ("mass_by_layer", "layer_head_frames", "layer_head_summary", "time"):
        for ending in ("html", "png", "svg", "csv"):
            assert (out / f"{stem}.{ending}").stat().st_size > 100
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["command"].endswith(f"--out {out}")
    assert record["config"]["question"] == "what?"
    assert Route.from_dict(record["route"]) == Route.pal(tiny.LAYERS, [0, 2])
    assert len(record["weights"]["checkpoint"]["sha256"]) == 64
    assert record["versions"]["torch"] and record["seed"] == 0
    assert list(record["data"]) == [str(clip)] and len(record["data"][str(clip)]) == 64
    assert record["finished"] and record["seconds"] > 0


def test_many_clips_are_resumed_and_bad_ones_counted(
    command: Any,
    script: Any,
    checkpoint: Path,
    sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (sounds / "broken.wav").write_bytes(b"RIFF no sound")
    out = tmp_path / "out"
    arguments = ("--model", checkpoint, "--audio", sounds, "--out", out)
    assert command(*arguments) == 0
    said = capsys.readouterr()
    assert "2 clip(s) measured, 1 left out" in said.out and "broken.wav" in said.err
    assert pd.read_parquet(out / "attention_mass.parquet")["path"].nunique() == 2
    band = pd.read_csv(out / "mass_by_layer.csv")
    unseen = band["mean"].isna()  # layers that the route keeps a stream from, not layers at 0
    assert (band["n"][~unseen] == 2).all() and (band["n"][unseen] == 0).all()
    assert set(band["pathway"][~unseen]) == set(band["pathway"])
    assert band["low"].isna().all() and band["values"][~unseen].str.contains(" ").all()
    assert {"time_00_one.png", "time_01_two.png", "time.png"} <= {p.name for p in out.iterdir()}
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    left_out = record["tables"]["attention_mass"]["left_out"]
    assert [Path(each["path"]).name for each in left_out] == ["broken.wav"]
    assert command(*arguments) == 2
    assert "--resume" in capsys.readouterr().err

    def again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished clip was measured again")

    monkeypatch.setattr(script, "attention_mass", again)
    assert command(*arguments, "--resume") == 0


def test_a_manifest_names_the_clips(
    command: Any, checkpoint: Path, sounds: Path, tmp_path: Path
) -> None:
    manifest = sounds / "clips.csv"
    manifest.write_text("path,domain,label\ntwo.wav,sound,dog\n", encoding="utf-8")
    out = tmp_path / "out"
    assert command("--model", checkpoint, "--audio", manifest, "--out", out) == 0
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert [Path(path).name for path in record["data"]] == ["two.wav"]


def test_models_side_by_side_and_domains_apart(
    command: Any,
    checkpoint: Path,
    sounds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    another = tmp_path / "another"
    shutil.copytree(checkpoint, another)
    manifest = sounds / "clips.csv"
    rows = ["one.wav,sound,dog,test", "two.wav,speech,six,test", "one.wav,speech,one,train"]
    rows += ["two.wav,sound,dog,test"]
    manifest.write_text("\n".join(["path,domain,label,split", *rows, ""]), encoding="utf-8")
    out = tmp_path / "out"
    models = ["--model", checkpoint, another]
    options = ["--audio", manifest, "--split", "test", "--limit", "1", "--out", out]
    assert command(*models, *options) == 0
    bands = pd.read_csv(out / "mass_by_depth.csv")
    assert set(zip(bands["model"], bands["domain"], strict=True)) == {
        (model, domain) for model in (checkpoint.name, "another") for domain in ("sound", "speech")
    }
    assert (bands["n"] == bands["mean"].notna()).all() and (bands["n"] == 1).any()
    assert (out / "mass_by_depth.png").is_file()
    sums = pd.read_parquet(out / "another" / "mass_by_pathway.parquet")
    assert sums.groupby("path")["domain"].first().tolist() == ["sound", "speech"]
    np.testing.assert_allclose(sums.groupby(["path", "layer", "head"])["mass"].sum(), 1, atol=1e-5)
    depth = pd.read_csv(out / "another" / "depth.csv")
    assert set(depth["domain"]) == {"sound", "speech"} and (depth["peak"] < tiny.LAYERS).all()
    assert json.loads((out / "another" / "run.json").read_text())["config"]["model"] == str(another)

    assert command("--model", another, another / ".." / "another", *options) == 2
    assert "called alike" in capsys.readouterr().err
    options[options.index("test")] = "nowhere"
    assert command(*models, *options) == 2
    assert "no rows of split 'nowhere'" in capsys.readouterr().err


def test_wrong_input_ends_in_one_line(
    command: Any,
    checkpoint: Path,
    sounds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = {"--model": checkpoint, "--audio": sounds / "one.wav", "--out": tmp_path / "out"}
    for changes, named in (
        ({"--model": tmp_path / "nowhere"}, "nowhere"),
        ({"--audio": sounds / "nowhere.wav"}, "nowhere.wav"),
        ({"--audio": tmp_path / "out"}, "no sound file"),
        ({"--question": "  "}, "question is empty"),
    ):
        (tmp_path / "out").mkdir(exist_ok=True)
        given = good | changes
        assert command(*[each for pair in given.items() for each in pair]) == 2
        said = capsys.readouterr().err
        assert named in said and "Traceback" not in said

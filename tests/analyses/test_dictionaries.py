"""The command that trains dictionaries: what it writes, and that it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope.features import load_dictionary
from tests.analyses.conftest import call, open_script
from tests.features.made import planted, store_of

CLIPS = [
    {
        "name": f"{label} {number}",
        "label": label,
        "domain": "sound",
        "split": "train" if number < 6 else "validation",
        "group": f"{label} {number}",
    }
    for label in ("dog", "rain", "sea")
    for number in range(10)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dog's clips have a direction that no other clip has, once a clip."""
    values, directions = planted(3_000, d=12, latents=20, k=2)
    for clip in range(10):
        values[100 * clip + 7] += 6.0 * directions[0]
    out = tmp_path_factory.mktemp("rows") / "run"
    neurons = torch.rand(3_000, 9, generator=torch.Generator().manual_seed(2))
    store_of(out, {"site": values, "neurons": neurons, "empty": values}, CLIPS)
    return out


def test_dictionaries_are_trained_scored_and_compared(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    script = open_script("dictionaries")
    out = tmp_path / "out"
    words: list[Any] = [folder, "--at", "site", "--neurons", "neurons", "--out", out, "--k", 2]
    words += ["--wide", 2, "--steps", 150, "--batch", 256, "--rate", 0.01]
    assert call(script, monkeypatch, *words) == 0
    scores, labels = (pd.read_csv(out / f"{name}.csv") for name in ("scores", "labels"))
    assert scores["seed"].tolist() == [0, 1] and scores["rows"].tolist() == [1200, 1200]
    assert (scores["fvu"] < 0.3).all()
    table: Any = labels.pivot(index="label", columns="units", values="auroc")
    assert set(table) == {"features", "dimensions", "neurons", "random"} and len(table) == 3
    assert table.loc["dog", "features"] > 0.9 and not np.isnan(table.to_numpy()).any()
    told = capsys.readouterr().out
    assert "live latents have a partner" in told and "features: " in told
    assert load_dictionary(out / "seed-1").about["hook_point"] == "site"
    before = (out / "seed-0/sae_weights.safetensors").stat().st_mtime_ns
    assert call(script, monkeypatch, *words) == 0  # read, not trained again
    assert (out / "seed-0/sae_weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--at", "nowhere"], "has no 'nowhere'; it has site, neurons"),
        (["--at", "site", "--test", "heldout"], "no clips of split 'heldout'"),
    ],
)
def test_rows_that_are_not_there_are_told(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    words: list[str],
    says: str,
) -> None:
    script = open_script("dictionaries")
    assert call(script, monkeypatch, folder, *words, "--out", tmp_path / "out") == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_model_is_asked_through_dictionaries(
    checkpoint: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clips = ["--audio", manifest]
    stored, out = tmp_path / "rows", tmp_path / "out"
    at: list[Any] = ["--model", checkpoint, "--at", "encoder_block:0", "--out", stored]
    assert call(open_script("activations"), monkeypatch, *at, *clips) == 0
    words: list[Any] = [stored, "--at", "audio_blocks.0.hook_out", "--out", out, "--k", 2]
    words += ["--wide", 2, "--steps", 20, "--batch", 64, "--seeds", 0, "--train", "validation"]
    script = open_script("dictionaries")
    assert call(script, monkeypatch, *words, *clips, "--questions", 2) == 0
    found: Any = pd.read_csv(out / "spliced.csv")
    by = found.set_index(["domain", "run"])
    assert by["n"].tolist() == [2] * 8 + [4] * 4  # of each domain, and of all
    for column in ("loss", "accuracy"):
        one, same = (by.loc[("all", run), column] for run in ("model", "with error"))
        assert same == pytest.approx(one, abs=1e-4)
    assert by["loss"].loc["all"].nunique() > 2
    assert "reconstruction" in capsys.readouterr().out
    lacking = manifest.with_name("other.csv")
    lacking.write_text("path,domain,label,split\nsound0.wav,sound,dog,train\n", encoding="utf-8")
    assert call(script, monkeypatch, *words, "--audio", lacking) == 2
    assert "no clips of split 'validation'; it has ['train']" in capsys.readouterr().err

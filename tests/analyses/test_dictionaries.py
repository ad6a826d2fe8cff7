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

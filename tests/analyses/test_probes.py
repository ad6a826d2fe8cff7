"""The command that probes stored activations: what it reads, writes, draws and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.analyses.conftest import call, open_script
from tests.features.made import store_of

CLIPS = [
    {
        "name": f"{label} {number}",
        "label": label,
        "domain": "sound",
        "split": "train",
        "group": f"{label} {number // 2}",
        "seconds": 0.1,
    }
    for label in ("dog", "rain")
    for number in range(20)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The label is told from 40 ms on, in layer 1 alone."""
    drawn = torch.Generator().manual_seed(0)
    below, above = (torch.randn(5 * len(CLIPS), 4, generator=drawn) for _ in range(2))
    for clip in range(20):
        above[5 * clip + 2 : 5 * clip + 5, 3] += 5
    out = tmp_path_factory.mktemp("rows") / "run"
    store_of(out, {"blocks.0.hook_out": below, "blocks.1.hook_out": above}, CLIPS)
    return out


def test_layers_and_stretches_are_probed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    script = open_script("probes")
    assert call(script, monkeypatch, folder, "--out", tmp_path / "layers") == 0
    assert "blocks.1.hook_out, sound: 100.0 % [" in capsys.readouterr().out
    table: Any = pd.read_csv(tmp_path / "layers" / "probes.csv").set_index("layer")
    assert table.accuracy[1] == 1.0 and table.accuracy[0] < 0.8 and table.recordings[0] == 20
    assert (table["site"] == "blocks.*.hook_out").all()
    for ending in ("html", "png", "svg", "csv"):
        assert (tmp_path / "layers" / f"accuracy_by_layer.{ending}").is_file()
    words: list[Any] = [folder, "--at", "blocks.1.hook_out", "--step", 0.04]
    assert call(script, monkeypatch, *words, "--out", tmp_path / "time") == 0
    table = pd.read_csv(tmp_path / "time" / "probes.csv")
    assert table["start"].tolist() == [0.0, 0.04] and table["accuracy"][1] == 1.0
    assert table["accuracy"][0] < 0.8
    assert (tmp_path / "time" / "accuracy_over_time.png").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--at", "nowhere"], "no hook point 'nowhere' is stored; there are blocks.0.hook_out"),
        (["--domain", "music"], "no domain 'music' is stored; there are sound"),
        (["--step", "0.5"], "half of the clips of sound are shorter than 0.10 s"),
    ],
)
def test_what_is_not_there_is_told(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    words: list[str],
    says: str,
) -> None:
    script = open_script("probes")
    assert call(script, monkeypatch, folder, *words, "--out", tmp_path / "out") == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()

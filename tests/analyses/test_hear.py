"""The command that makes an index of units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palscope.features import Dictionary, UnitIndex, save_dictionary
from tests.analyses.conftest import call, open_script
from tests.features.made import planted, store_of

CLIPS = [{"name": f"{label} {n}", "label": label} for label in ("dog", "rain") for n in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six clips, and a dictionary of its rows."""
    out = tmp_path_factory.mktemp("rows")
    values, directions = planted(120, d=8, latents=12, k=2)
    rows = {"site": values, "neurons": torch.rand(120, 5), "pattern.frames": torch.rand(120, 3)}
    heads = {"pattern.frames": [(0, 1), (4, 0), (4, 1)]}
    store_of(out / "store", rows, CLIPS, heads=heads)
    dictionary = Dictionary(8, 12, kind="topk", k=2)
    dictionary.W_enc.data, dictionary.W_dec.data = directions.T.contiguous(), directions
    save_dictionary(dictionary, out / "dictionary")
    (out / "clips.csv").write_text(
        "path,domain,label\n" + "".join(f"{clip['name']},sound,dog\n" for clip in CLIPS[:2])
    )
    for clip in CLIPS[:2]:
        (out / clip["name"]).touch()
    return out


@pytest.mark.parametrize(
    ("words", "units"),
    [
        (["--at", "site", "--dictionary", "dictionary"], {"features": 12, "random": 12}),
        (
            ["--at", "site", "--dictionary", "dictionary", "--neurons", "neurons"],
            {"features": 12, "neurons": 5, "random": 12},
        ),
        (["--at", "site"], {"dimensions": 16}),
        (["--neurons", "neurons"], {"neurons": 5}),
        (["--heads", "pattern.frames"], {"heads": 3, "spread evenly": 3}),
    ],
)
def test_units_are_indexed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any,
    words: list[str], units: dict[str, int],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    given: list[Any] = ["store", *words, "--audio", "clips.csv", "--out", tmp_path / "out"]
    assert call(open_script("hear"), monkeypatch, *given) == 0
    index = UnitIndex(tmp_path / "out")
    assert {name: len(each) for name, each in index.items()} == units
    assert list(index) == list(units)
    told = capsys.readouterr().out
    assert "6 clips; " in told and "4 clips have no sound among --audio" in told
    assert [bool(sound) for sound in index.clips["sound"]] == [True] * 2 + [False] * 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no units: give --at"),
        (["--dictionary", "dictionary"], "--dictionary needs --at"),
        (["--neurons", "nowhere"], "has no 'nowhere'; it has site, neurons"),
        (["--heads", "site"], "site is no attention of heads"),
        (["--heads", "pattern.frames", "--at", "site"], "--heads are units of an index of their"),
    ],
)
def test_units_that_are_not_there_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any,
    words: list[str], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    assert call(open_script("hear"), monkeypatch, "store", *words, "--out", tmp_path / "out") == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()

"""The command `analyses/attribution.py`, on a tiny checkpoint and short clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.analyses.conftest import call, open_script


@pytest.fixture
def script() -> Any:
    return open_script("attribution")


@pytest.fixture
def command(script: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*arguments: object) -> int:
        return call(script, monkeypatch, *arguments)

    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.normal(size=9600), 16_000)
    table = tmp_path / "pairs.csv"
    table.write_text(
        "clean,corrupt,question,clean_answer,corrupt_answer\n"
        "a.wav,b.wav,what?,one,two\n"
        "b.wav,c.wav,what?,two,three\n",
        encoding="utf-8",
    )
    return table


FEW = ("--steps", 8, "--every", 2, "--windows", 3, "--random", 2)


@pytest.mark.slow
def test_pairs_are_attributed_and_checked(
    command: Any, script: Any, checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    arguments = ("--model", checkpoint, "--pairs", pairs, "--out", out, *FEW)
    assert command(*arguments) == 0
    table = pd.read_parquet(out / "attributions.parquet")
    assert table["pair"].nunique() == 2
    by_patching = table[table["method"] == script.PATCHING]
    sites = {"audio_state", "connector_output", "encoder_output", "mel"}
    assert set(by_patching["site"]) == sites
    complete = pd.read_csv(out / "completeness.csv")
    tokens = complete[complete["site"] == "audio_state"]
    np.testing.assert_allclose(tokens["attribution"], tokens["difference"], atol=0.05)
    assert (tokens["difference"].abs() > 0.01).any()
    cells = pd.read_parquet(out / "cells.parquet")
    # 0.6 s in two steps, for two pairs: by layer (0 and 2 see both streams) and at the mel
    # spectrogram by two methods, at the connector's output, and in all layers of each stream.
    assert len(cells) == 2 * 2 * ((2 * 2 + 1) * 2 + 1 + 2)
    assert set(cells.loc[cells["method"] == script.GRADIENTS, "layer"]) == {0, 2}
    agreement = pd.read_csv(out / "agreement.csv")
    best = agreement.set_index(["method", "site"])["pearson"]
    assert best[script.GRADIENTS, "audio_state"] > 0.9
    assert best[script.TOGETHER, "audio_state"] > 0.9
    curves = pd.read_parquet(out / "curves.parquet")
    assert curves["order"].nunique() == 4 + 2
    for stem in ("scatter", "agreement_by_layer", "deletion_insertion", "map_000_a_b"):
        found = [path.name for path in out.iterdir() if path.stem == stem]
        assert len(found) == 4, (stem, sorted(path.name for path in out.iterdir()))
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"]

    def again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished pair was measured again")

    monkeypatch.setattr(script, "attribution_patching", again)
    monkeypatch.setattr(script, "activation_patching", again)
    monkeypatch.setattr(script, "deletion_insertion", again)
    assert command(*arguments, "--resume") == 0


def test_against_silence_the_log_probability_counts(
    command: Any, script: Any, checkpoint: Path, pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ("--pairs", pairs, "--against", "silence", "--n", 1, "--out", out, *FEW)
    assert command("--model", checkpoint, *given) == 0
    curves = pd.read_parquet(out / "curves.parquet")
    ends = curves[(curves["curve"] == "deletion") & (curves["order"] == "attention mass")]
    ends = ends.set_index("step")["logprob"]
    complete = pd.read_csv(out / "completeness.csv")
    # From silence to the clip: the same difference, whatever it is shared out over.
    whole = complete[complete["method"] == script.TOGETHER]["difference"]
    np.testing.assert_allclose(whole, ends[0] - ends[3], atol=1e-4)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.analyses.conftest import call, open_script


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    script = open_script("plan")
    return lambda *arguments: call(script, monkeypatch, *arguments)


def test_a_backbone_is_planned_without_weights(
    plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--backbone", "meta-llama/Llama-3.2-1B", "--integration", "lal", "--seconds", 10)
    assert plan(*given, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "1,235,814,400 weights" in printed and "route frames:P16" in printed
    assert "no time: give rates" in printed
    memory = pd.read_csv(tmp_path / "memory.csv").set_index(["phase", "part"])["bytes"]
    assert memory["inference", "decoder"] >= 2 * 1_235_814_400
    # LAL's cache: 100 tokens of audio and 40 of text, 8 heads of 64, in 16 layers
    assert memory["inference", "cache of the prompt"] == 2 * 2 * 8 * 64 * 140 * 16
    assert pd.read_csv(tmp_path / "work.csv")["seconds"].isna().all()


def test_a_checkpoint_is_planned_at_given_rates(
    plan: Any, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--model", checkpoint, "--seconds", 2, "--dtype", "float32")
    rates = ("--flops-per-second", 1e12, "--bytes-per-second", 1e11)
    assert plan(*given, *rates) == 0
    assert "at 1 TFLOP/s and 100 GB/s, at least:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--flops-per-second", 1e12), "go together"),
        (("--measure-rates", "--bytes-per-second", 1), "only goes without --measure-rates"),
        (("--integration", "lal", "--route", "frames:P16"), "--integration only goes"),
        (("--bits", 4, "--train", "connector and decoder"), "4 bits can neither"),
        (("--seconds", 0), "expected sound"),
    ],
)
def test_options_that_do_not_fit_end_in_one_line(
    plan: Any, capsys: pytest.CaptureFixture[str], given: tuple[Any, ...], message: str
) -> None:
    assert plan("--backbone", "meta-llama/Llama-3.2-1B", "--seconds", 1, *given) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said

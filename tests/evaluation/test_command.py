"""The command `analyses/evaluate.py`, with a model that hears pitch in place of a trained one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.analyses.conftest import call, open_script


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, hearing: Any) -> Any:
    script = open_script("evaluate")

    class Anything:
        @classmethod
        def from_pretrained(cls, folder: Path) -> Anything:
            return cls()

        def eval(self) -> Anything:
            return self

        def to(self, device: str) -> Anything:
            return self

    monkeypatch.setattr(script, "PalscopeForConditionalGeneration", Anything)
    monkeypatch.setattr(script, "PalscopeProcessor", Anything)
    monkeypatch.setattr(script, "ModelAnswerer", lambda model, processor: hearing)

    return lambda *arguments: call(script, monkeypatch, *arguments)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_scores_are_written_and_printed(
    command: Any,
    checkpoint: Path,
    make_manifest: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = make_manifest([("sound", "dog"), ("sound", "rain"), ("speech", "one")])
    out = tmp_path / "out"
    assert command("--model", checkpoint, "--manifest", manifest, "--out", out) == 0
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert (scores["accuracy"], scores["n"]) == (1.0, 3)
    assert scores["by_domain"]["sound"]["n"] == 2
    printed = capsys.readouterr().out
    assert "all" in printed and "speech" in printed and "100.0 %" in printed

    given = ("--model", checkpoint, "--manifest", manifest, "--out", out)
    assert command(*given) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert command(*given, "--resume") == 0
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == scores
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    assert command(*given, "--resume") == 2
    assert "config.model: " in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["--model", "--manifest"])
def test_wrong_input_ends_in_one_line(
    command: Any,
    checkpoint: Path,
    make_manifest: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    manifest = make_manifest([("sound", "dog")])
    given = {"--model": checkpoint, "--manifest": manifest, "--out": tmp_path / "out"}
    given[wrong] = tmp_path / "nowhere"
    assert command(*[each for pair in given.items() for each in pair]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "nowhere" in message


def test_a_limit_below_one_is_refused(command: Any, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command("--model", checkpoint, "--manifest", "m.csv", "--out", tmp_path, "--limit", 0)

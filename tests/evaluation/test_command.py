"""The command `analyses/evaluate.py`, with a model that hears pitch in place of a trained one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from palscope._models.chat_format import PROMPT_DATE
from tests.analyses.conftest import call, open_script
from tests.evaluation.benchmarks.samples import json_file, mmau


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, hearing: Any) -> Any:
    script = open_script("evaluate")
    words = SimpleNamespace(chat_template="{{ strftime_now('%Y') }}")
    hearing.processor = SimpleNamespace(
        system=None,
        date=PROMPT_DATE,
        tokenizer=words,
        any_question="?",
        chat=lambda question: question,
    )
    monkeypatch.setattr(script, "open_answerer", lambda name, **_: hearing)
    return lambda *arguments: call(script, monkeypatch, *arguments)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "palscope"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_scores_are_written_and_printed(
    command: Any,
    checkpoint: Path,
    make_manifest: Any,
    tmp_path: Path,
    hearing: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = make_manifest([("sound", "dog"), ("sound", "rain"), ("speech", "one")])
    out = tmp_path / "out"
    assert command("--model", checkpoint, "--audio", manifest, "--out", out) == 0
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert (scores["accuracy"], scores["n"]) == (1.0, 3)
    assert scores["by_domain"]["sound"]["n"] == 2
    printed = capsys.readouterr().out
    assert "all" in printed and "speech" in printed and "100.0 %" in printed

    given = ("--model", checkpoint, "--audio", manifest, "--out", out)
    assert command(*given) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert command(*given, "--resume") == 0
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == scores
    for other in (("--system", "hm"), ("--date", "2025-03-01")):
        assert command(*given, "--resume", *other) == 2
        assert "config.model: " in capsys.readouterr().err
        hearing.processor.system, hearing.processor.date = None, PROMPT_DATE
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    assert command(*given, "--resume") == 2
    assert "config.model: " in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["--model", "--audio"])
def test_wrong_input_ends_in_one_line(
    command: Any,
    checkpoint: Path,
    make_manifest: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    manifest = make_manifest([("sound", "dog")])
    given = {"--model": checkpoint, "--audio": manifest, "--out": tmp_path / "out"}
    given[wrong] = tmp_path / "nowhere"
    assert command(*[each for pair in given.items() for each in pair]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "nowhere" in message


def test_a_limit_below_one_is_refused(command: Any, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command("--model", checkpoint, "--audio", "m.csv", "--out", tmp_path, "--n", 0)


def test_stored_predictions_are_scored_without_a_model(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [mmau("a", model_output="Man"), mmau("b", model_output="Woman"), mmau("c")]
    stored = json_file(tmp_path / "p.json", rows)
    out = tmp_path / "out"
    assert command("--benchmark", "mmau", "--predictions", stored, "--out", out) == 0
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert (scores["accuracy"], scores["n"]) == (0.5, 2)
    assert scores["by_category"]["task"]["speech"]["n"] == 2
    assert (scores["strict"]["accuracy"], scores["strict"]["n"]) == (pytest.approx(1 / 3), 3)
    printed = capsys.readouterr().out
    assert "official: accuracy  50.0 %" in printed and "strict: accuracy  33.3 %" in printed
    assert "1 questions have no prediction" in printed and "version unknown" in printed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--benchmark", "mmau"), "needs --questions: a JSON list"),
        (("--benchmark", "mmau", "--questions", "q.json"), "give a checkpoint by --model"),
        (("--benchmark", "mmau", "--predictions", "gone.json"), "gone.json: no such file"),
        (
            ("--benchmark", "mmau", "--predictions", "p", "--model", "m"),
            "--model only goes without --predictions",
        ),
        (("--benchmark", "mmau", "--temporal"), "--temporal only goes without --benchmark"),
        *(
            (("--benchmark", "mmau", *words), f"{words[0]} only goes without --benchmark")
            for words in (("--split", "s"), ("--wordings", "heldout"), ("--swapped",))
        ),
        (("--audio", "m.csv", "--embedder", "e"), "--embedder only goes with --benchmark"),
        (("--benchmark", "mmau", "--audio", "m.csv"), "--audio only goes without --benchmark"),
        (("--benchmark", "nothing", "--questions", "q"), "mmau"),
    ],
)
def test_options_that_do_not_fit_end_in_one_line(
    command: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, ...],
    message: str,
) -> None:
    assert command(*given, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said


def test_manifest_runs_can_be_compared(
    command: Any,
    checkpoint: Path,
    make_manifest: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = make_manifest([("sound", "dog"), ("sound", "rain"), ("sound", "rain")])
    for name, audio in (("a", ()), ("b", ("--swapped",))):
        given = ("--model", checkpoint, "--audio", manifest, *audio)
        assert command(*given, "--out", tmp_path / name) == 0
    compare = open_script("compare_scores")
    capsys.readouterr()
    given = (tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both")
    assert call(compare, monkeypatch, *given) == 0
    printed = capsys.readouterr().out
    assert "ranking: A 1.0000, B 0.0000" in printed and "A alone 3, B alone 0" in printed
    assert (tmp_path / "both" / "comparison.csv").read_text().startswith("rule,by,at,n,a,b")
    assert call(compare, monkeypatch, tmp_path / "a", tmp_path) == 2

"""Benchmarks asked of a model that hears pitch, and scored from what is stored."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from palscope.errors import BenchmarkError, PalscopeError
from palscope.evaluation._benchmark_runs import evaluate_benchmark, score_predictions
from palscope.evaluation._benchmarks.registry import BENCHMARKS
from palscope.evaluation._ranking import ChoiceQuestion
from palscope.evaluation._rows import compare_runs
from tests.analyses.conftest import open_script
from tests.evaluation.benchmarks.samples import json_file, json_lines, mmau, mmsu

RATE = 16_000


class Hearing:
    """Hears how loud a clip is in tenths: that choice is its answer."""

    def __init__(self, *, stops_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.left = stops_after

    @staticmethod
    def heard(each: ChoiceQuestion) -> int:
        return round(10 * float(np.abs(each.waveforms[0]).max())) - 1

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        return [[-float(n != self.heard(each)) for n in range(len(each.choices))] for each in asked]

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        if self.left is not None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
        self.asked += [each.question for each in asked]
        return [each.choices[self.heard(each)] if each.choices else "a car" for each in asked]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Six questions of MMAU, two a clip; the answers are 0, 1, 2, 3, 0 and 1."""
    folder = tmp_path / "audio" / "test-mini-audios"
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for n in range(6):
        row = mmau(f"q{n}", task=["sound", "music"][n % 2])
        row["answer"] = row["choices"][n % 4]
        row["audio_id"] = f"./test-mini-audios/{n}.wav"
        sf.write(folder / f"{n}.wav", np.full(800, (n % 4 + 1) / 10), RATE)
        rows.append(row)
    return json_file(tmp_path / "questions.json", rows)


def asked(questions: Path, out: Path, hearing: Hearing, **options: Any) -> dict[str, Any]:
    options = {"audio": questions.parent / "audio", "progress": False, "batch_size": 2} | options
    return evaluate_benchmark(hearing, BENCHMARKS["mmau"], questions, out, **options)


def test_a_model_is_asked_and_its_answers_are_scored_as_stored_ones(
    questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scores = asked(questions, out, Hearing(), model="m")
    assert (scores["accuracy"], scores["n"], scores["reported"]) == (1.0, 6, "official")
    assert scores["strict"]["accuracy"] == scores["ranking"]["accuracy"] == 1.0
    by_task = scores["by_category"]["task"]
    assert {task: each["n"] for task, each in by_task.items()} == {"sound": 3, "music": 3}
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == scores
    own = score_predictions(
        BENCHMARKS["mmau"], out / "answers.json", tmp_path / "own", questions=questions
    )
    for key in ("accuracy", "n", "interval", "by_category", "strict", "version"):
        assert own[key] == scores[key]


def test_missing_and_broken_audio_is_listed_and_strictly_wrong(
    questions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "audio" / "test-mini-audios"
    (folder / "0.wav").unlink()
    (folder / "1.wav").write_bytes(b"no sound")
    scores = asked(questions, tmp_path / "out", Hearing())
    assert scores["missing"] == ["./test-mini-audios/0.wav"]
    assert [Path(each["path"]).name for each in scores["unreadable"]] == ["1.wav"]
    assert (scores["accuracy"], scores["n"]) == (1.0, 4)
    assert (scores["strict"]["accuracy"], scores["strict"]["n"]) == (pytest.approx(4 / 6), 6)
    assert scores["unanswered"] == ["q0", "q1"]
    with pytest.raises(BenchmarkError, match=r"none of 6 audio files is in .*--folder"):
        asked(questions, tmp_path / "no", Hearing(), audio=tmp_path / "nowhere")


def test_clips_may_lie_flat_in_the_folder(questions: Path, tmp_path: Path) -> None:
    flat = tmp_path / "audio" / "test-mini-audios"
    assert asked(questions, tmp_path / "out", Hearing(), audio=flat)["n"] == 6


def test_a_killed_run_goes_on_where_it_stopped(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = asked(questions, tmp_path / "whole", Hearing())
    with pytest.raises(KeyboardInterrupt):
        asked(questions, out, Hearing(stops_after=1))
    rest = Hearing()
    with pytest.raises(PalscopeError, match="holds a run already"):
        asked(questions, out, rest)
    assert asked(questions, out, rest, resume=True) == whole
    assert len(rest.asked) == 4
    with pytest.raises(PalscopeError, match=r"config\.n: None, now 2"):
        asked(questions, out, rest, resume=True, n=2)


def test_a_limit_is_spread_over_categories_of_the_same_version(
    questions: Path, tmp_path: Path
) -> None:
    few = asked(questions, tmp_path / "few", Hearing(), n=2)
    assert few["n"] == few["strict"]["n"] == 2
    assert set(few["by_category"]["task"]) == {"sound", "music"}
    assert few["version"] == asked(questions, tmp_path / "all", Hearing())["version"]


def test_two_models_are_compared_question_by_question(questions: Path, tmp_path: Path) -> None:
    class Deaf(Hearing):
        @staticmethod
        def heard(each: ChoiceQuestion) -> int:
            return 0

    asked(questions, tmp_path / "a", Hearing())
    asked(questions, tmp_path / "b", Deaf())
    table = compare_runs(tmp_path / "a", tmp_path / "b").set_index(["rule", "by", "at"])
    row = table.loc[("official", "all", "")]
    assert (row["a"], row["b"], row["n"]) == (1.0, pytest.approx(2 / 6), 6)
    assert (row["only_a"], row["only_b"]) == (4, 0)
    assert row["p"] == pytest.approx(2 * 0.5**4)
    assert row["difference"] == pytest.approx(-4 / 6)
    assert np.isnan(row["low"]) and row["least_p"] == row["p"]  # six clips, of which four change
    assert sorted(row["values"].numbers) == [-1, -1, -1, -1, 0, 0]
    assert table.loc[("official", "task", "music"), "b"] == 0.0
    back = compare_runs(tmp_path / "b", tmp_path / "a").set_index(["rule", "by", "at"])
    assert back.loc[("official", "all", ""), "difference"] == pytest.approx(4 / 6)


def test_runs_on_other_questions_are_not_compared(questions: Path, tmp_path: Path) -> None:
    asked(questions, tmp_path / "a", Hearing())
    rows = json.loads(questions.read_text(encoding="utf-8"))
    revised = json_file(questions, [{**rows[0], "question": "What else?"}, *rows[1:]])
    asked(revised, tmp_path / "b", Hearing())
    with pytest.raises(PalscopeError, match="answered different questions"):
        compare_runs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(PalscopeError, match=r"scores\.json is missing"):
        compare_runs(tmp_path / "a", tmp_path)


def test_a_letter_is_ranked_where_a_letter_is_asked_for(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.full(800, 0.2), RATE)
    path = json_lines(tmp_path / "q.jsonl", [mmsu("a")])
    scores = evaluate_benchmark(
        Hearing(), BENCHMARKS["mmsu"], path, tmp_path / "out", progress=False
    )
    assert scores["accuracy"] == scores["ranking"]["accuracy"] == 1.0
    stored = json.loads((tmp_path / "out" / "answers.jsonl").read_text(encoding="utf-8"))
    assert stored == mmsu("a") | {"response": "B"}


def test_esc_reports_the_ranking_first_and_open_answers_beside(tmp_path: Path) -> None:
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for n, label in enumerate(["cat", "dog", "dog"]):
        sf.write(tmp_path / f"{n}.wav", np.full(800, [0.1, 0.2, 0.1][n]), RATE)
        lines.append(f"{n}.wav,{n % 2 + 1},0,{label},True,{n},A")
    (tmp_path / "esc50.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    scores = evaluate_benchmark(
        Hearing(),
        BENCHMARKS["esc50"],
        tmp_path / "esc50.csv",
        tmp_path / "out",
        embedder=lambda texts: np.array([[t.count("cat"), t.count("dog")] for t in texts]),
        progress=False,
    )
    assert scores["reported"] == "ranking"
    assert scores["accuracy"] == scores["open"]["accuracy"] == pytest.approx(2 / 3)
    assert {k: v["accuracy"] for k, v in scores["by_category"]["fold"].items()} == {
        "1": 0.5,
        "2": 1.0,
    }
    with (tmp_path / "out" / "answers.csv").open(newline="", encoding="utf-8") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == ["cat", "dog", "cat"]


def test_open_questions_are_asked_without_choices(tmp_path: Path) -> None:
    sf.write(tmp_path / "Ya.wav", np.full(800, 0.1), RATE)
    (tmp_path / "truth.tsv").write_text("a.wav\t0\t10\tCar\na.wav\t0\t10\tBus\n", encoding="utf-8")
    scores = evaluate_benchmark(
        Hearing(), BENCHMARKS["dcase"], tmp_path / "truth.tsv", tmp_path / "out", progress=False
    )
    assert (scores["measure"], scores["n"]) == ("micro_f1", 1)
    assert scores["micro_f1"] == pytest.approx(2 / 3)
    assert "ranking" not in scores and scores["interval"] is None


def test_what_is_stored_once_is_not_written_over(questions: Path, tmp_path: Path) -> None:
    rows = json.loads(questions.read_text(encoding="utf-8"))
    stored = json_file(tmp_path / "p.json", [{**row, "model_output": "Man"} for row in rows])
    give: dict[str, Any] = {"out": tmp_path / "out", "benchmark": BENCHMARKS["mmau"]}
    first = score_predictions(predictions=stored, **give)
    assert first["settings"]["questions"] is None and first["accuracy"] == pytest.approx(2 / 6)
    with pytest.raises(PalscopeError, match="holds a run already"):
        score_predictions(predictions=stored, **give)
    assert score_predictions(predictions=stored, resume=True, **give) == first
    json_file(stored, [{**row, "model_output": "Robot"} for row in rows])
    with pytest.raises(PalscopeError, match=r"other settings \(config\.predictions\.sha256"):
        score_predictions(predictions=stored, resume=True, **give)


@pytest.mark.parametrize("blank", ["", None, "absent"])
@pytest.mark.parametrize("name", ["mmau", "mmsu"])
def test_a_test_set_without_answers_gets_predictions_to_hand_in_and_no_score(
    name: str, blank: Any, questions: Path, tmp_path: Path
) -> None:
    field, said = {"mmau": ("answer", "model_output"), "mmsu": ("answer_gt", "response")}[name]
    rows = json.loads(questions.read_text(encoding="utf-8"))
    if name == "mmsu":
        rows = [mmsu(row["id"]) | {"audio_path": row["audio_id"], "id": row["id"]} for row in rows]
    for row in rows:
        row[field] = blank
        if blank == "absent":
            del row[field]
    file = (
        json_lines(tmp_path / "test.jsonl", rows) if name == "mmsu" else json_file(questions, rows)
    )
    options: dict[str, Any] = {"audio": tmp_path / "audio", "progress": False}
    benchmark = BENCHMARKS[name]
    scores = evaluate_benchmark(Hearing(), benchmark, file, tmp_path / "out", **options)
    assert (scores["accuracy"], scores["n"], scores["reported"]) == ("unknown", 0, "withheld")
    assert "withheld" in scores["reason"] and "ranking" not in scores
    assert not {"official", "strict"} & scores.keys() and scores["unanswered"] == []
    stored = tmp_path / "out" / benchmark.predictions_name
    written = stored.read_text(encoding="utf-8")
    made = json.loads(written) if name == "mmau" else [json.loads(x) for x in written.splitlines()]
    # The question file's rows as they are, with what the model says.
    assert [{k: v for k, v in row.items() if k != said} for row in made] == rows
    assert all(isinstance(row[said], str) and row[said] for row in made)
    for asked_of in (file, None):
        with pytest.raises(BenchmarkError, match="answers are withheld"):
            score_predictions(benchmark, stored, tmp_path / "no", questions=asked_of)
    evaluate = open_script("evaluate")
    evaluate.report(Namespace(out=tmp_path / "out"), scores)


@pytest.mark.parametrize("name", ["mmau", "mmsu"])
def test_one_answer_that_is_missing_among_others_is_told(name: str, tmp_path: Path) -> None:
    field = {"mmau": "answer", "mmsu": "answer_gt"}[name]
    rows: list[Any] = [{"mmau": mmau, "mmsu": mmsu}[name](f"q{n}") for n in range(3)]
    rows[1][field] = ""
    file = json_file(tmp_path / "q.json", rows)
    with pytest.raises(BenchmarkError, match=rf"row 2: field {field} is ''"):
        BENCHMARKS[name].read_questions(file)

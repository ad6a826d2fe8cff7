from __future__ import annotations

from pathlib import Path

import pytest

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.own import OWN
from palscope.evaluation._benchmarks.registry import BENCHMARKS, find_benchmark
from tests.evaluation.benchmarks.samples import outcome, scored

QUESTIONS = """audio,question,choices,answer,category
a.wav,Who?,Man | Woman,Man,speech
b.wav,"Which, of two?",,A door,sound
c.wav,Who?,Man|Woman,Woman,speech
"""


def test_with_choices_as_mmau_without_word_for_word(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(QUESTIONS, encoding="utf-8")
    stored = 'id,prediction\n1,"It is a man,\nclearly"\n2,a door!\n'
    (tmp_path / "p.csv").write_text(stored, encoding="utf-8")
    rules = scored(OWN, tmp_path / "p.csv", tmp_path / "q.csv")
    assert outcome(rules["answered"]) == (2, 2)
    assert outcome(rules["strict"]) == (2, 3)
    questions = OWN.read_questions(tmp_path / "q.csv")
    assert questions[1].text == "Which, of two?" and OWN.prompt(questions[1]) == questions[1].text
    assert OWN.prompt(questions[0]) == "Who? Choose from: Man, Woman."


def test_what_is_stored_is_what_was_said(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(QUESTIONS, encoding="utf-8")
    questions = OWN.read_questions(tmp_path / "q.csv")
    said = ['two\nlines, "quoted"', "a\u2028b\x1cc\r\nd", ""]
    OWN.write_predictions(tmp_path / "p.csv", list(zip(questions, said, strict=True)))
    given = OWN.read_predictions(tmp_path / "p.csv", questions)
    assert [each.answer for each in given] == said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio,question\n", "column answer missing.*audio, question, answer; found"),
        ("audio,question,answer\n", "it has a header but no rows"),
        ("audio,question,answer\na.wav,,yes\n", r"row 2: field question is ''"),
        ("", "found nothing"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "q.csv").write_text(text, encoding="utf-8")
    with pytest.raises(BenchmarkError, match=message):
        OWN.read_questions(tmp_path / "q.csv")
    (tmp_path / "q.csv").write_bytes(b"audio,question,answer\n\xff,b,c\n")
    with pytest.raises(BenchmarkError, match="not UTF-8"):
        OWN.read_questions(tmp_path / "q.csv")
    with pytest.raises(BenchmarkError, match="no such file"):
        OWN.read_questions(tmp_path / "gone.csv")


def test_ids_must_tell_questions_apart(tmp_path: Path) -> None:
    rows = "id,audio,question,answer\n1,a.wav,Who?,Man\n1,b.wav,Who?,Man\n"
    (tmp_path / "q.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "p.csv").write_text("id,prediction\n1,Man\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="two questions with the id '1'"):
        scored(OWN, tmp_path / "p.csv", tmp_path / "q.csv")
    (tmp_path / "q.csv").write_text(rows.replace("\n1,b", "\n2,b"), encoding="utf-8")
    (tmp_path / "p.csv").write_text("id,prediction\nx,Man\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match=r"no prediction belongs to a question.*'x'"):
        scored(OWN, tmp_path / "p.csv", tmp_path / "q.csv")


def test_benchmarks_are_found_by_name() -> None:
    assert all(find_benchmark(name).name == name for name in BENCHMARKS)
    with pytest.raises(BenchmarkError, match="no benchmark 'mmlu'; expected one of esc50"):
        find_benchmark("mmlu")

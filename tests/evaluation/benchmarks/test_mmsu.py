from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.mmsu import MMSU, letter
from tests.evaluation.benchmarks.samples import json_file, json_lines, mmsu, outcome, scored


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("B", "B"),
        (" B. falling", "B"),
        ("Actually, B.", "A"),
        ("The answer is B.", "B"),
        ("the answer is (B)", "B"),
        ("the answer is B", None),
        ("b", None),
        ("B\n", "B"),
        ("is\nB\n.", "B"),
        ("falling", None),
        ("XC", None),
        ("X", None),
        ("C?", "C"),
        ("", None),
        ("None", None),
        (None, None),
        (["B"], None),
    ],
)
def test_the_letter_is_the_first_character_else_the_second_last(response: Any, said: Any) -> None:
    assert letter(response) == said


def test_official_and_strict(tmp_path: Path) -> None:
    responses: list[Any] = ["B", "A", "falling", "so: B.", None]
    rows = [mmsu(str(n), response=each) for n, each in enumerate(responses)]
    rules = scored(MMSU, json_lines(tmp_path / "p.jsonl", rows))
    assert outcome(rules["official"]) == (2, 3)
    assert rules["official"].skipped == ("2", "4")
    assert outcome(rules["strict"]) == (2, 5)


def test_officially_an_empty_response_repeats_the_letter_before(tmp_path: Path) -> None:
    rows = [
        mmsu("0", response=""),
        mmsu("1", response="B"),
        mmsu("2", response="None"),
        mmsu("3", response="falling"),
        mmsu("4"),
    ]
    rules = scored(MMSU, json_lines(tmp_path / "p.jsonl", rows))
    # the official script stops at the first, which has no letter before it
    assert outcome(rules["official"]) == (3, 3)
    assert rules["official"].skipped == ("0", "3")
    assert rules["official"].notes[0].startswith("2 responses")
    assert outcome(rules["strict"]) == (1, 5)


def test_two_choices_may_be_left_out(tmp_path: Path) -> None:
    row = mmsu(response="D")
    row["choice_d"] = None
    del row["choice_c"]
    rules = scored(MMSU, json_file(tmp_path / "p.json", [row]))
    assert outcome(rules["official"]) == (0, 1)
    question = MMSU.read_questions(tmp_path / "p.json")[0]
    assert (MMSU.options(question), MMSU.option_of(question)) == (("A", "B"), "B")
    assert "B. falling" in MMSU.prompt(question)


def test_errors_name_file_row_and_field(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "q.jsonl", [mmsu("a"), mmsu("b", choice_b=3)])
    with pytest.raises(BenchmarkError, match=r"q\.jsonl, row 2: field choice_b is 3"):
        MMSU.read_questions(path)
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(BenchmarkError, match=r"q\.jsonl, line 2: not valid JSON"):
        MMSU.read_questions(path)
    with pytest.raises(BenchmarkError, match="no row has the field response"):
        MMSU.read_predictions(json_lines(path, [mmsu()]), None)

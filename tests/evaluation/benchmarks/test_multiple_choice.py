"""MMAU and MMAR: the string match, and what is counted."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.mmar import MMAR
from palscope.evaluation._benchmarks.mmau import MMAU
from palscope.evaluation._benchmarks.multiple_choice import string_match
from palscope.evaluation._benchmarks.sheet import Sheet, content_digest
from tests.evaluation.benchmarks.samples import json_file, json_lines, mmau, outcome, scored

# Each verdict is the official script's (its repository's state of January 2026).
CASES = [
    ("Man", ["Man", "Woman"], "man", True),
    ("Man", ["Man", "Woman"], "The MAN.", True),
    ("Man", ["Man", "Woman"], "man or woman", False),
    ("Man", ["Man", "Woman"], "men", False),
    ("A woman", ["A child", "A woman", "An adult man"], "woman", False),
    ("A woman", ["A child", "A woman", "An adult man"], "woman, a", True),
    ("A woman", ["A child", "A woman", "An adult man"], "a woman, no child", False),
    ("Too little", ["Too little", "Too much, can't finish"], "little too late", True),
    ("Too much, can't", ["Too little", "Too much, can't"], "Too much, can’t", True),
    ("Dog", ["Dog", "Dog barking"], "dog", True),
    ("Dog", ["Dog", "Dog barking"], "dog barking", False),
    ("Dog barking", ["Dog", "Dog barking"], "dog barking", True),
    ("fourteen", ["four", "fourteen", "fourteen"], "fourteen", True),
    ("five", ["five", "Five", "six"], "FIVE", True),
    ("five", ["five", "six"], "", False),
    ("five", ["five", "six"], " ... ", False),
    ("♪", ["♪", "a"], "well", True),
    ("♪", ["♪", "a"], "a", False),
    ("Größe", ["Größe", "Höhe"], "GRÖSSE", False),
    ("Größe", ["Größe", "Höhe"], "größe!", True),
    ("中文", ["中文", "英文"], "是中文", False),
    ("C# major", ["C# major", "D major"], "C major", True),
    ("snake_case", ["snake_case", "snake"], "snake case", False),
    ("120", ["120", "1200"], "120.5", True),
    ("3/4", ["3/4", "4/4"], "4/3", True),
    ("Yes", ["Yes", "No"], "Yes, there is no doubt", False),
    ("(A) Man", ["(A) Man", "(B) Woman"], "A man", True),
]


@pytest.mark.parametrize(("answer", "choices", "prediction", "right"), CASES)
def test_string_match_gives_the_official_verdict(
    answer: str, choices: list[str], prediction: str, right: bool
) -> None:
    assert string_match(prediction, answer, choices) is right


def spelled(text: str) -> list[str]:
    """The words of a text, letter by letter: an implementation without regular expressions."""
    out = [""]
    for letter in text.lower():
        if letter == "_" or letter.isalnum():
            out[-1] += letter
        elif not (unicodedata.category(letter).startswith("M") and letter.isalnum()):
            out.append("")
    return [word for word in out if word]


def test_string_match_agrees_with_a_second_implementation() -> None:
    rng = random.Random(0)
    parts = ["a", "man", "Man", "woman", "no", "two", "2", "can't", "x-y", "ß", "_", "♪", "中文"]
    seen = {True: 0, False: 0}
    for _ in range(4000):
        choices = [" ".join(rng.choices(parts, k=rng.randint(1, 3))) for _ in range(4)]
        answer, other = rng.choice(choices), rng.choice(choices)
        said = rng.choice([answer, f"{answer}.", f"{answer} {other}", f"so, {answer.upper()}!", ""])
        said += rng.choice(["", "", f" {rng.choice(parts)}"])
        expected = bool(spelled(said))
        for word in spelled(answer):
            expected &= word in spelled(said)
        for choice in choices:
            for word in spelled(choice):
                if word not in spelled(answer) and word in spelled(said):
                    expected = False
        assert string_match(said, answer, choices) is expected, (said, answer, choices)
        seen[expected] += 1
    assert min(seen.values()) > 500


def test_official_passes_over_and_strict_counts_what_is_unanswered(tmp_path: Path) -> None:
    rows = [
        mmau("right", model_output="Man"),
        mmau("wrong", model_output="Woman"),
        mmau("empty", model_output=""),
        mmau("none"),
        mmau("null", model_output=None),
        mmau("list", model_output=["Man"]),
    ]
    rules = scored(MMAU, json_file(tmp_path / "p.json", rows))
    assert outcome(rules["official"]) == (1, 3)
    assert rules["official"].skipped == ("none", "null", "list")
    assert "2 predictions are no text" in rules["official"].notes[0]
    assert outcome(rules["strict"]) == (1, 6)


def test_a_repeated_row_counts_again_officially_and_once_strictly(tmp_path: Path) -> None:
    rows = [
        mmau("same", model_output="Man"),
        mmau("same", model_output="Man"),
        mmau("torn", model_output="Man"),
        mmau("torn", model_output="Woman"),
    ]
    rules = scored(MMAU, json_file(tmp_path / "p.json", rows))
    assert outcome(rules["official"]) == (3, 4)
    assert outcome(rules["strict"]) == (1, 2)


def test_the_question_file_says_what_is_true_and_what_is_missing(tmp_path: Path) -> None:
    questions = json_file(tmp_path / "q.json", [mmau("a"), mmau("b"), mmau("c")])
    stored = [
        {"id": "b", "model_output": "Man"},
        mmau("a", answer="Robot", model_output="Robot"),
        mmau("z", model_output="Man"),
    ]
    path = json_file(tmp_path / "p.json", stored)
    rules = scored(MMAU, path, questions)
    assert outcome(rules["official"]) == (1, 2)
    assert outcome(rules["strict"]) == (1, 3)
    asked = MMAU.read_questions(questions)
    sheet = Sheet.of(MMAU.read_predictions(path, asked), asked)
    assert (sheet.unknown, sheet.revised, sheet.repeated) == (("z",), ("a",), ())
    with pytest.raises(BenchmarkError, match=r"row 1: field choices is None"):
        scored(MMAU, path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (mmau(question=None), "row 2: field question is None; expected text"),
        (mmau(answer=["Man"]), r"row 2: field answer is \['Man'\]"),
        (mmau(choices="Man"), "row 2: field choices is 'Man'; expected a list"),
        (mmau(choices=["Man", 3]), "row 2: field choices has entries that are no text"),
        (mmau(choices=[]), r"row 2: field choices is \[\]"),
        (mmau(audio_id=""), "row 2: field audio_id is ''"),
        ("Man", "row 2: expected an object with the fields of a question, got str"),
    ],
)
def test_errors_name_file_row_and_field(tmp_path: Path, row: Any, message: str) -> None:
    path = json_file(tmp_path / "q.json", [mmau("first"), row])
    with pytest.raises(BenchmarkError, match=rf"q\.json, {message}"):
        MMAU.read_questions(path)


def test_a_field_of_another_name_is_no_prediction(tmp_path: Path) -> None:
    path = json_file(tmp_path / "p.json", [mmau(model_prediction="Man")])
    with pytest.raises(BenchmarkError, match=r"no row has the field model_output.*model_pred"):
        MMAU.read_predictions(path, None)


def test_mmar_is_read_by_its_own_names(tmp_path: Path) -> None:
    row = mmau("x") | {"audio_path": "./audio/x.wav", "modality": "mix-sound-speech"}
    del row["audio_id"]
    path = json_lines(tmp_path / "p.txt", [row | {"answer_prediction": "the MAN"}])
    rules = scored(MMAR, path)
    assert outcome(rules["official"]) == (1, 1)
    score = rules["official"].scores[0]
    assert score.question.groups["modality"] == "mix-sound-speech"
    assert score.question.audio == ("./audio/x.wav",)
    # a JSON list serves as well, whatever the file's name
    assert (
        outcome(scored(MMAR, json_file(path, [row | {"answer_prediction": "a"}]))["strict"])[0] == 0
    )


def test_a_version_is_told_by_questions_alone(tmp_path: Path) -> None:
    rows = [mmau("a"), mmau("b")]
    one = MMAU.read_questions(json_file(tmp_path / "1.json", rows))
    two = MMAU.read_questions(
        json_file(tmp_path / "2.json", [mmau("b", model_output="x"), mmau("a", task="music")])
    )
    revised = MMAU.read_questions(
        json_file(tmp_path / "3.json", [mmau("a"), mmau("b", answer="Robot")])
    )
    assert content_digest(one) == content_digest(two) != content_digest(revised)
    assert all(len(digest) == 16 for digest in MMAU.versions)


def test_categories_are_text_whatever_the_file_has(tmp_path: Path) -> None:
    rows = [mmau("a", category=["Reasoning", "Other"]), mmau("b", difficulty=None)]
    first, second = MMAU.read_questions(json_file(tmp_path / "q.json", rows))
    assert first.groups["category"] == "Reasoning, Other"
    assert second.groups["difficulty"] == ""

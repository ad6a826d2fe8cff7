from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.esc50 import ESC10, ESC50
from palscope.evaluation._benchmarks.rules import Unknown
from palscope.evaluation._benchmarks.sheet import Sheet
from palscope.evaluation._rows import score
from tests.evaluation.benchmarks.samples import outcome, scored

META = """filename,fold,target,category,esc10,src_file,take
1-100-A-0.wav,1,0,dog,True,100,A
1-101-A-20.wav,1,20,crying_baby,True,101,A
2-102-A-36.wav,2,36,vacuum_cleaner,False,102,A
2-103-B-0.wav,2,0,dog,True,103,B
"""


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    path = tmp_path / "esc50.csv"
    path.write_text(META, encoding="utf-8")
    return path


def write(path: Path, rows: str) -> Path:
    path.write_text("filename,prediction\n" + rows, encoding="utf-8")
    return path


def test_labels_folds_and_the_subset(meta: Path) -> None:
    questions = ESC50.read_questions(meta)
    assert questions[0].choices == ("crying baby", "dog", "vacuum cleaner")
    assert questions[1].truth == ("crying baby",)
    assert [each.groups["fold"] for each in questions] == ["1", "1", "2", "2"]
    subset = ESC10.read_questions(meta)
    assert len(subset) == 3 and subset[0].choices == ("crying baby", "dog")


def test_answers_are_matched_word_for_word(meta: Path, tmp_path: Path) -> None:
    rows = "1-100-A-0.wav,Dog.\n1-101-A-20.wav,Crying_Baby\n2-102-A-36.wav,a vacuum cleaner\n"
    rules = scored(ESC50, write(tmp_path / "p.csv", rows), meta)
    assert outcome(rules["text"]) == (2, 3)
    assert outcome(rules["strict"]) == (2, 4)
    by_fold = score(rules["text"].table(), "accuracy")["by_category"]["fold"]
    assert {fold: (each["accuracy"], each["n"]) for fold, each in by_fold.items()} == {
        "1": (1.0, 2),
        "2": (0.0, 1),
    }
    assert isinstance(rules["open"], Unknown) and "--embedder" in rules["open"].reason


def letters(texts: Sequence[str]) -> np.ndarray:
    """Counts of letters: near is what is spelled with the same ones."""
    return np.array(
        [[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float
    )


def test_open_answers_go_to_the_nearest_label(meta: Path, tmp_path: Path) -> None:
    rows = (
        "1-100-A-0.wav,A dog!\n1-101-A-20.wav,the baby is crying\n2-102-A-36.wav,\n"
        "2-103-B-0.wav,vacuum cleaners\n"
    )
    path = write(tmp_path / "p.csv", rows)
    questions = ESC50.read_questions(meta)
    rules = ESC50.rules(Sheet.of(ESC50.read_predictions(path, questions), questions), letters)
    assert outcome(rules["open"]) == (2, 4)
    assert outcome(rules["text"]) == (0, 4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("esc10,", "", "column esc10 missing"),
        ("1,0,dog,True", "1,0,dog,yes", r"line 2: column esc10 is 'yes'"),
        ("1,0,dog,True", "1,0,,True", "row 2: field category is ''"),
    ],
)
def test_errors_name_file_row_and_column(meta: Path, old: str, new: str, message: str) -> None:
    meta.write_text(META.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BenchmarkError, match=message):
        ESC50.read_questions(meta)


def test_predictions_need_the_question_file(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "1-100-A-0.wav,dog\n")
    with pytest.raises(BenchmarkError, match="--questions"):
        scored(ESC50, path)

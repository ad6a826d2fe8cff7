from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.dcase import DCASE, LABELS, labels_in
from palscope.evaluation._rows import score
from tests.evaluation.benchmarks.samples import scored

TRUTH = [
    ("a_0.000_10.000.wav", "Train horn"),
    ("a_0.000_10.000.wav", "Train"),
    ("b_0.000_10.000.wav", "Car"),
    ("c_30.000_40.000.wav", "Air horn, truck horn"),
]


def write(path: Path, rows: list[tuple[str, str]], end: str = "10.000") -> Path:
    lines = [f"{file}\t0.000\t{end}\t{label}\r\n" for file, label in rows]
    path.write_bytes("".join(lines).encode())
    return path


def f1(rule: Any) -> float:
    return score(rule.table(), rule.measure)["micro_f1"]


def test_micro_f1_of_weak_labels(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.csv", TRUTH)
    predicted = [
        ("a_0.000_10.000.wav", "Train"),
        ("a_0.000_10.000.wav", "Bus"),
        ("b_0.000_10.000.wav", "Car"),
        ("b_0.000_10.000.wav", "Car"),
        ("z.wav", "Car"),
    ]
    rules = scored(DCASE, write(tmp_path / "p.tsv", predicted), truth)
    # hits: Train, Car; false: Bus, Car once more; missed: Train horn, and strictly c's label
    assert f1(rules["official"]) == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert f1(rules["strict"]) == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    assert rules["official"].skipped == ("c_30.000_40.000",)
    table = score(rules["official"].table(), "micro_f1")
    assert table["n"] == 2
    assert table["by_category"]["label"]["Car"]["micro_f1"] == pytest.approx(2 / 3)


def test_micro_f1_agrees_with_counting_each_label_by_itself(tmp_path: Path) -> None:
    rng = random.Random(1)
    truth = {f"{n}.wav": rng.sample(LABELS, rng.randint(1, 3)) for n in range(60)}
    said = {
        name: rng.sample([*LABELS[:6], *own], 2) for name, own in truth.items() if name != "7.wav"
    }
    said = {name: list(dict.fromkeys(labels)) for name, labels in said.items()}
    files = [
        write(tmp_path / f"{k}.tsv", [(f, label) for f, labels in each.items() for label in labels])
        for k, each in (("truth", truth), ("said", said))
    ]
    tp = fp = fn = 0
    for name, labels in said.items():
        for label in LABELS:
            tp += label in labels and label in truth[name]
            fp += label in labels and label not in truth[name]
            fn += label not in labels and label in truth[name]
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    expected = 2 * precision * recall / (precision + recall)
    assert f1(scored(DCASE, files[1], files[0])["official"]) == pytest.approx(expected)


def test_a_clip_in_which_nothing_was_heard_is_answered(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.csv", TRUTH)
    rules = scored(DCASE, write(tmp_path / "p.tsv", [("b_0.000_10.000.wav", "")]), truth)
    assert f1(rules["official"]) == 0.0
    assert len(rules["official"].scores) == 1
    # officially an end of zero seconds takes a line out
    ended = write(tmp_path / "p0.tsv", [("b_0.000_10.000.wav", "Car")], end="0.0")
    assert DCASE.read_predictions(ended, None) == []


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("A car alarm.", ("Car alarm",)),
        ("car; car alarm", ("Car alarm", "Car")),
        ("A CAR PASSING BY, and a train horn", ("Train horn", "Car passing by")),
        ("an air horn and a truck", ("Air horn, truck horn", "Truck")),
        ("Fire engine, fire truck (siren)", ("Fire engine, fire truck (siren)",)),
        ("police car", ("Police car (siren)",)),
        ("cars and scary training", ()),
        ("", ()),
    ],
)
def test_labels_are_found_in_what_a_model_writes(text: str, labels: tuple[str, ...]) -> None:
    assert labels_in(text) == labels


def test_every_label_is_found_in_its_own_name() -> None:
    assert [labels_in(label) for label in LABELS] == [(label,) for label in LABELS]
    assert labels_in("; ".join(LABELS)) == LABELS


def test_what_a_model_said_is_stored_as_it_is_scored(tmp_path: Path) -> None:
    questions = DCASE.read_questions(write(tmp_path / "truth.csv", TRUTH))
    said = ["a train horn and a train", "silence", "truck horn"]
    DCASE.write_predictions(tmp_path / "p.tsv", list(zip(questions, said, strict=True)))
    given = DCASE.read_predictions(tmp_path / "p.tsv", questions)
    assert [each.answer for each in given] == [
        ("Train horn", "Train"),
        (),
        ("Air horn, truck horn",),
    ]


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"t\.csv, line 1: label 'Boat' is none of"):
        DCASE.read_questions(write(tmp_path / "t.csv", [("a.wav", "Boat")]))
    (tmp_path / "t.csv").write_text("a.wav,0,10,Car\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="line 1: expected file, start, end and label"):
        DCASE.read_questions(tmp_path / "t.csv")
    with pytest.raises(BenchmarkError, match="end 'late'; expected seconds"):
        DCASE.read_predictions(write(tmp_path / "p.tsv", [("a.wav", "Car")], end="late"), None)

"""DCASE 2017 task 4 A (Mesaros et al. 2017): which of 17 sounds of traffic are in a clip.

The question file is a weak-label ground truth, without a header: file, start, end (seconds) and
label apart by tabs, a line a label. Predictions have the same form; a line without a label says
that nothing was heard in a clip.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from palscope._files import write_text
from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.benchmark import Benchmark, Rules
from palscope.evaluation._benchmarks.files import read_lines
from palscope.evaluation._benchmarks.rules import AnswerScore, ScoringRule
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, Given, Question, Sheet
from palscope.evaluation._nearest import Embedder

LABELS = (
    "Train horn",
    "Air horn, truck horn",
    "Car alarm",
    "Reversing beeps",
    "Bicycle",
    "Skateboard",
    "Ambulance (siren)",
    "Fire engine, fire truck (siren)",
    "Civil defense siren",
    "Police car (siren)",
    "Screaming",
    "Car",
    "Car passing by",
    "Bus",
    "Truck",
    "Motorcycle",
    "Train",
)
"""The 17 classes, by the names that the ground truth has."""

SAYS = "micro F1 over 17 classes: a label is right where the clip's weak labels have it"


def labels_in(text: str) -> tuple[str, ...]:
    """The classes that a text names, longer names first: "car alarm" names no car.

    Names count as whole words in any case, with punctuation and what stands in brackets left out
    of both: "a fire engine, fire truck" names its class, "police car" too. Half of a double name
    ("air horn") does as well. The rules are ours.
    """
    found: set[str] = set()
    said = f" {' '.join(_words(text))} "
    names = [(" ".join(_words(part)), label) for label in LABELS for part in _names(label)]
    for name, label in sorted(names, key=lambda each: -len(each[0])):
        if f" {name} " in said:
            found.add(label)
            said = said.replace(f" {name} ", " | ")
    return tuple(label for label in LABELS if label in found)


def rules(sheet: Sheet, embedder: Embedder | None = None) -> Rules:
    """`official`: clips without a prediction are passed over; `strict`: their labels are misses."""
    del embedder
    official = _predicted(sheet)
    full = {question.id: official.get(question.id, ()) for question in sheet.questions}
    return {
        "official": _rule(sheet, official, f"{SAYS}; clips without a prediction are passed over"),
        "strict": _rule(sheet, full, f"{SAYS}; labels of clips without a prediction are missed"),
    }


def read_questions(path: Path) -> list[Question]:
    """The clips of a ground truth, each with its labels in the file's order.

    Raises:
        BenchmarkError: a line has no four fields, or a label that is none of the 17.
    """
    truths: dict[str, list[str]] = {}
    for number, (file, start, _, label) in _rows(path):
        if label not in LABELS:
            raise BenchmarkError(
                f"{path}, line {number}: label {label!r} is none of the task's 17 classes."
            )
        del start
        truths.setdefault(file, []).append(label)
    return [
        Question(
            id=_name(file),
            audio=(file, f"Y{file}", f"{_name(file)}.flac"),
            text="Which of these sounds can be heard?",
            choices=LABELS,
            truth=tuple(labels),
            groups={},
        )
        for file, labels in truths.items()
    ]


def read_predictions(path: Path, questions: Sequence[Question] | None) -> list[Given]:
    """A clip's lines together; a line with an end of 0 seconds is passed over, as officially."""
    del questions
    labels: dict[str, list[str]] = {}
    for _, (file, _, end, label) in _rows(path, predicted=True):
        if end and float(end) == 0:
            continue
        labels.setdefault(_name(file), []).extend([label] if label else [])
    return [Given(name, tuple(each)) for name, each in labels.items()]


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store the labels that answers name, in that form."""
    lines: list[str] = []
    for question, answer in pairs:
        # Weak labels: the whole clip, whose length in seconds the file's name says.
        lines += [
            f"{question.audio[0]}\t0.000\t10.000\t{each}\n" for each in labels_in(answer) or ("",)
        ]
    write_text(path, "".join(lines))


def _predicted(sheet: Sheet) -> dict[str, tuple[str, ...]]:
    return {q.id: cast("tuple[str, ...]", a) for q, a in sheet.rows if a is not NOT_GIVEN}


def _rule(sheet: Sheet, predicted: dict[str, tuple[str, ...]], says: str) -> ScoringRule:
    scores: list[AnswerScore] = []
    for question in sheet.questions:
        if question.id not in predicted:
            continue
        # A label that is predicted twice is right once, and wrong once: the official count.
        open_truths, hits = list(question.truth), list[str]()
        false = list[str]()
        for label in predicted[question.id]:
            if label in open_truths:
                open_truths.remove(label)
                hits.append(label)
            else:
                false.append(label)
        for label in dict.fromkeys((*hits, *false, *open_truths)):
            tp = hits.count(label)
            wrong = false.count(label) + open_truths.count(label)
            scores.append(AnswerScore(question.id, question, 2.0 * tp, 2.0 * tp + wrong, label))
    return ScoringRule(
        says,
        "micro_f1",
        tuple(scores),
        skipped=tuple(each.id for each in sheet.questions if each.id not in predicted),
    )


def _rows(path: Path, *, predicted: bool = False) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[str]]] = []
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        fields += [""] * (4 - len(fields)) if predicted else []
        if len(fields) != 4 or not fields[0]:
            raise BenchmarkError(
                f"{path}, line {number}: expected file, start, end and label apart by tabs, got "
                f"{line!r}."
            )
        try:
            start, end = (float(field or 0) for field in fields[1:3])
        except ValueError:
            start = end = math.nan
        if not 0 <= start < math.inf or not (start <= end < math.inf or not fields[2]):
            raise BenchmarkError(
                f"{path}, line {number}: start is {fields[1]!r} and end {fields[2]!r}; expected "
                "seconds, the start before the end."
            )
        rows.append((number, fields))
    return rows


def _name(file: str) -> str:
    return file.split(".wav")[0].split(".flac")[0].strip()


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _names(label: str) -> list[str]:
    """The whole name, and the halves of a double one, without what stands in brackets."""
    bare = re.sub(r"\(.*?\)", "", label).strip()
    halves = [half.strip() for half in bare.split(",")]
    return [label, bare, *(halves if len(halves) > 1 else [])]


def _prompt(question: Question) -> str:
    # Ours.
    return f"{question.text} Name all of them: {'; '.join(question.choices)}."


def _nothing(question: Question) -> Any:
    return ()


DCASE = Benchmark(
    name="dcase",
    questions_are="a weak-label ground truth, e.g. groundtruth_weak_label_testing_set.csv",
    predictions_are="lines of file, start, end and label apart by tabs, as the ground truth",
    read_questions=read_questions,
    read_predictions=read_predictions,
    write_predictions=write,
    prompt=_prompt,
    options=_nothing,
    option_of=lambda question: "; ".join(question.truth),
    rules=rules,
    max_new_tokens=48,
    predictions_name="answers.tsv",
)

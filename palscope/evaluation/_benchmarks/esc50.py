"""ESC-50 (Piczak 2015) and its subset ESC-10: everyday sounds in five folds.

The question file is the data set's `esc50.csv`: `filename, fold, target, category, esc10, …`. No
form of predictions is fixed for language models; ours is a CSV with `filename, prediction`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palscope._files import write_table
from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.benchmark import Benchmark, Rules
from palscope.evaluation._benchmarks.files import read_csv_rows, text_field
from palscope.evaluation._benchmarks.rules import Unknown, in_order, strict
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, Given, Question, Sheet
from palscope.evaluation._nearest import Embedder, nearest_labels

TEXT_SAYS = "the prediction is the label, apart from case and punctuation"
OPEN_SAYS = "the label whose embedding is nearest to the prediction's is the right one (as LTU)"


def plain(text: str) -> str:
    """A label or an answer by its words alone: lower-case, `_` and punctuation as spaces."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def judge(question: Question, answer: Any) -> bool:
    """Whether an answer is the label."""
    return isinstance(answer, str) and plain(answer) == plain(question.truth[0])


def rules(sheet: Sheet, embedder: Embedder | None) -> Rules:
    """`text` over the rows that are answered, `strict` over all, and `open` with an embedder."""
    verdicts = [
        None if answer is NOT_GIVEN else judge(question, answer) for question, answer in sheet.rows
    ]
    return {
        "text": in_order(
            sheet, verdicts, f"{TEXT_SAYS}; rows without a prediction are passed over"
        ),
        "strict": strict(sheet, judge, TEXT_SAYS),
        "open": open_rule(sheet, embedder),
    }


def open_rule(sheet: Sheet, embedder: Embedder | None) -> Any:
    """Answers in the model's own words, matched to the nearest of the sheet's labels."""
    if embedder is None:
        return Unknown("accuracy", "no text embedding was named: give --embedder")
    labels = sorted({choice for question in sheet.questions for choice in question.choices})
    texts = [answer if isinstance(answer, str) else "" for _, answer in sheet.rows]
    found = nearest_labels(texts, labels, embedder)
    verdicts = [
        None if answer is NOT_GIVEN else label == question.truth[0]
        for (question, answer), label in zip(sheet.rows, found, strict=True)
    ]
    return in_order(sheet, verdicts, f"{OPEN_SAYS}; rows without a prediction are passed over")


def read_esc50(path: Path, *, esc10: bool = False) -> list[Question]:
    """The clips of `esc50.csv`; with `esc10` only those of the subset, whose labels are fewer.

    Raises:
        BenchmarkError: a column or a cell is missing or is not what the data set has there.
    """
    rows = read_csv_rows(path, ("filename", "fold", "category", "esc10"))
    for number, row in rows:
        if row["esc10"] not in ("True", "False"):
            raise BenchmarkError(
                f"{path}, line {number}: column esc10 is {row['esc10']!r}; expected True or False."
            )
    rows = [(number, row) for number, row in rows if not esc10 or row["esc10"] == "True"]
    if not rows:
        raise BenchmarkError(f"{path}: no row is of ESC-10.")
    labels = tuple(sorted({plain(text_field(path, n, row, "category")) for n, row in rows}))
    return [
        Question(
            id=text_field(path, number, row, "filename"),
            audio=(text_field(path, number, row, "filename"),),
            text="Which everyday sound is this?",
            choices=labels,
            truth=(plain(row["category"]),),
            groups={
                "fold": text_field(path, number, row, "fold"),
                "category": plain(row["category"]),
            },
        )
        for number, row in rows
    ]


def read_predictions(path: Path, questions: Sequence[Question] | None) -> list[Given]:
    """A CSV with `filename, prediction`; a cell that is empty is an answer without words."""
    del questions
    rows = read_csv_rows(path, ("filename", "prediction"))
    return [
        Given(text_field(path, number, row, "filename"), row["prediction"]) for number, row in rows
    ]


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store answers in that form."""
    rows = ((question.id, answer) for question, answer in pairs)
    write_table(path, ("filename", "prediction"), rows)


def _prompt(question: Question) -> str:
    # Ours; a wording that the demo was trained on.
    return question.text


def _benchmark(name: str, *, esc10: bool) -> Benchmark:
    return Benchmark(
        name=name,
        questions_are="the data set's meta/esc50.csv",
        predictions_are="a CSV with the columns filename, prediction",
        read_questions=lambda path: read_esc50(path, esc10=esc10),
        read_predictions=read_predictions,
        write_predictions=write,
        prompt=_prompt,
        options=lambda question: question.choices,
        option_of=lambda question: question.truth[0],
        rules=rules,
        max_new_tokens=12,
        predictions_name="answers.csv",
        ranking_first=True,
    )


ESC50 = _benchmark("esc50", esc10=False)
ESC10 = _benchmark("esc10", esc10=True)

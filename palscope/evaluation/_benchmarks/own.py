"""A CSV of one's own: `audio, question, answer`, and if need be `id, choices, category`.

Choices stand in one cell apart by `|`. Predictions are a CSV with `id, prediction`; without a
column `id` the question file's ids are its row numbers, from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palscope._files import write_table
from palscope.evaluation._benchmarks import multiple_choice
from palscope.evaluation._benchmarks.benchmark import Benchmark, Rules
from palscope.evaluation._benchmarks.esc50 import TEXT_SAYS
from palscope.evaluation._benchmarks.esc50 import judge as same_words
from palscope.evaluation._benchmarks.files import read_csv_rows, text_field
from palscope.evaluation._benchmarks.rules import in_order, strict
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, Given, Question, Sheet
from palscope.evaluation._nearest import Embedder

SAYS = (
    f"with choices, {multiple_choice.SAYS.replace('the benchmark', 'MMAU')}; without, {TEXT_SAYS}"
).replace("the label", "the answer")


def judge(question: Question, answer: Any) -> bool:
    """MMAU's string match where there are choices, else the same words in the same order."""
    return (multiple_choice.judge if question.choices else same_words)(question, answer)


def rules(sheet: Sheet, embedder: Embedder | None = None) -> Rules:
    """`answered` over the rows with a prediction, `strict` over all."""
    del embedder
    verdicts = [None if answer is NOT_GIVEN else judge(q, answer) for q, answer in sheet.rows]
    return {
        "answered": in_order(sheet, verdicts, f"{SAYS}; rows without a prediction are passed over"),
        "strict": strict(sheet, judge, SAYS),
    }


def read_questions(path: Path) -> list[Question]:
    """The rows of the CSV."""
    questions: list[Question] = []
    rows = read_csv_rows(path, ("audio", "question", "answer"))
    for number, (line, row) in enumerate(rows, 1):
        choices = [part.strip() for part in (row.get("choices") or "").split("|")]
        questions.append(
            Question(
                id=text_field(path, line, row, "id") if "id" in row else str(number),
                audio=(text_field(path, line, row, "audio").strip(),),
                text=text_field(path, line, row, "question").strip(),
                choices=tuple(choice for choice in choices if choice),
                truth=(text_field(path, line, row, "answer").strip(),),
                groups={"category": row["category"] or ""} if "category" in row else {},
            )
        )
    return questions


def read_predictions(path: Path, questions: Sequence[Question] | None) -> list[Given]:
    """A CSV with `id, prediction`; an empty cell is an answer without words."""
    del questions
    rows = read_csv_rows(path, ("id", "prediction"))
    return [Given(text_field(path, number, row, "id"), row["prediction"]) for number, row in rows]


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store answers in that form."""
    write_table(path, ("id", "prediction"), ((q.id, answer) for q, answer in pairs))


def _prompt(question: Question) -> str:
    return multiple_choice.prompt(question) if question.choices else question.text


OWN = Benchmark(
    name="csv",
    questions_are="a CSV with audio, question, answer (and id, choices apart by |, category)",
    predictions_are="a CSV with the columns id, prediction",
    read_questions=read_questions,
    read_predictions=read_predictions,
    write_predictions=write,
    prompt=_prompt,
    options=multiple_choice.options,
    option_of=multiple_choice.option_of,
    rules=rules,
    predictions_name="answers.csv",
)

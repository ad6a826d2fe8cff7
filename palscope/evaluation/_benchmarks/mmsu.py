"""MMSU (Wang et al. 2025, arXiv 2506.04779): spoken language, four choices, answered by a letter.

The question file has JSON objects, `{id, audio_path, question, choice_a … choice_d, answer_gt,
category, sub-category, …}`, in a list or one a line; predictions are its rows with `response`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.benchmark import Benchmark, Rules
from palscope.evaluation._benchmarks.files import (
    Row,
    answer_field,
    are_withheld,
    category,
    read_json_rows,
    text_field,
    write_json_lines,
)
from palscope.evaluation._benchmarks.rules import in_order, strict
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, WITHHELD, Given, Question, Sheet
from palscope.evaluation._nearest import Embedder

FIELD = "response"
LETTERS = "ABCD"
GROUPS = ("category", "sub-category")

SAYS = "the answer's letter is the response's first character, else its second-last"


def letter(response: Any) -> str | None:
    """The letter that MMSU's script reads from a response; None where it finds none.

    The first character decides, whatever word it begins: "Actually, B." is an A.
    """
    if not isinstance(response, str):
        return None
    said = response.strip().replace("\n", "")
    if said == "None" or not said:
        return None
    if said[0] in LETTERS:
        return said[0]
    return said[-2] if len(said) > 1 and said[-2] in LETTERS else None


def is_right(question: Question, chosen: str | None) -> bool:
    """Whether the choice with that letter is the answer, word for word."""
    return chosen is not None and question.choices[LETTERS.index(chosen)] == question.truth[0]


def rules(sheet: Sheet, embedder: Embedder | None = None) -> Rules:
    """`official`, which passes over malformed responses, and `strict`, which counts them wrong.

    MMSU's script does not pass over a response that is missing, empty or "None": it scores the
    letter of the row before once more. So does `official`, and says how often.
    """
    del embedder
    verdicts: list[bool | None] = []
    before: str | None = None
    carried = 0
    for question, answer in sheet.rows:
        response = "" if answer is NOT_GIVEN else answer
        empty = isinstance(response, str) and response.strip().replace("\n", "") in ("", "None")
        chosen = before if empty else letter(response)
        carried += empty and before is not None
        verdicts.append(None if chosen is None else is_right(question, chosen))
        before = chosen or before
    note = (
        f"{carried} responses are missing, empty or None: the official script gives them the "
        "letter of the row before, and so does this rule"
    )
    return {
        "official": in_order(
            sheet,
            verdicts,
            f"{SAYS}; rows with neither are passed over",
            [note] if carried else (),
        ),
        "strict": strict(sheet, lambda question, answer: is_right(question, letter(answer)), SAYS),
    }


def prompt(question: Question) -> str:
    """The question as MMSU's inference script asks it."""
    listed = "\n".join(
        f"{name}. {choice}" for name, choice in zip(LETTERS, question.choices, strict=True)
    )
    return (
        "Choose the most suitable answer from options A, B, C, and D to respond the question in "
        "next line, **you should only choose A or B or C or D.** Do not provide any additional "
        f"explanations or content.\n\nQuestion: {question.text}\n\n{listed}"
    )


def options(question: Question) -> tuple[str, ...]:
    """The letters of the choices that there are."""
    return tuple(name for name, choice in zip(LETTERS, question.choices, strict=True) if choice)


def option_of(question: Question) -> str:
    """The answer's letter; of equal choices the first. Empty where no choice is the answer."""
    places = [n for n, choice in enumerate(question.choices) if choice in question.truth]
    return LETTERS[places[0]] if places else ""


def read_questions(path: Path) -> list[Question]:
    """The rows of a question file."""
    rows = read_json_rows(path)
    withheld = are_withheld(rows, "answer_gt")
    return [_question(path, number, row, withheld) for number, row in enumerate(rows, 1)]


def read_predictions(path: Path, questions: Sequence[Question] | None) -> list[Given]:
    """The rows with their `response`. With the questions at hand `id` and `response` are enough."""
    rows = list(enumerate(read_json_rows(path), 1))
    if not any(FIELD in row for _, row in rows):
        raise BenchmarkError(
            f"{path}: no row has the field {FIELD}, in which MMSU's predictions stand; row 1 has "
            f"{', '.join(map(str, rows[0][1]))}."
        )
    withheld = are_withheld((row for _, row in rows), "answer_gt")
    if withheld and questions is None and "choice_a" in rows[0][1]:
        raise BenchmarkError(f"{path}: {WITHHELD}")
    given: list[Given] = []
    for number, row in rows:
        whole = questions is None or (not withheld and "answer_gt" in row)
        question = _question(path, number, row, False) if whole else None
        given.append(Given(_id(path, number, row), row.get(FIELD, NOT_GIVEN), question))
    return given


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store answers as MMSU's script takes them."""
    write_json_lines(path, ({**question.extra, FIELD: answer} for question, answer in pairs))


def _id(path: Path, number: int, row: Row) -> str:
    return text_field(path, number, row, "id" if "id" in row else "audio_path")


def _question(path: Path, number: int, row: Row, withheld: bool) -> Question:
    choices = [row.get(f"choice_{name.lower()}") for name in LETTERS]
    for name, choice in zip(LETTERS, choices, strict=True):
        if not isinstance(choice, str | None):
            raise BenchmarkError(
                f"{path}, row {number}: field choice_{name.lower()} is {choice!r}; expected text."
            )
    return Question(
        id=_id(path, number, row),
        audio=(text_field(path, number, row, "audio_path"),),
        text=text_field(path, number, row, "question"),
        choices=tuple(choice or "" for choice in choices),
        truth=answer_field(path, number, row, "answer_gt", withheld=withheld),
        groups={field: category(row, field) for field in GROUPS},
        extra=row,
    )


MMSU = Benchmark(
    name="mmsu",
    questions_are="JSON lines (or a JSON list) with choice_a … choice_d and answer_gt",
    predictions_are=f"its rows with the answer in {FIELD}",
    read_questions=read_questions,
    read_predictions=read_predictions,
    write_predictions=write,
    prompt=prompt,
    options=options,
    option_of=option_of,
    rules=rules,
    predictions_name="answers.jsonl",
)

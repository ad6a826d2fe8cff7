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
from palscope.evaluation._benchmarks.files import JsonRow, write_json_lines
from palscope.evaluation._benchmarks.json_rows import JsonRows
from palscope.evaluation._benchmarks.rules import in_order, strict
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, Question, Sheet
from palscope.evaluation._nearest import Embedder

FIELD = "response"
LETTERS = "ABCD"

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


def choices_of(path: Path, number: int, row: JsonRow) -> tuple[str, ...]:
    """Those of a row's four fields; "" where it has fewer. Raises `BenchmarkError` for no text."""
    choices = [row.get(f"choice_{name.lower()}") for name in LETTERS]
    for name, choice in zip(LETTERS, choices, strict=True):
        if not isinstance(choice, str | None):
            raise BenchmarkError(
                f"{path}, row {number}: field choice_{name.lower()} is {choice!r}; expected text."
            )
    return tuple(choice or "" for choice in choices)


ROWS = JsonRows(
    "audio_path", "answer_gt", ("category", "sub-category"), "choice_a", choices_of, FIELD
)


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store answers as MMSU's script takes them."""
    write_json_lines(path, ROWS.predicted(pairs))


MMSU = Benchmark(
    name="mmsu",
    questions_are="JSON lines (or a JSON list) with choice_a … choice_d and answer_gt",
    predictions_are=f"its rows with the answer in {FIELD}",
    read_questions=ROWS.questions,
    read_predictions=ROWS.predictions,
    write_predictions=write,
    prompt=prompt,
    options=options,
    option_of=option_of,
    rules=rules,
    predictions_name="answers.jsonl",
)

"""Questions with choices, answered in words: MMAU's string match, which MMAR shares."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.benchmark import Rules
from palscope.evaluation._benchmarks.files import (
    Row,
    answer_field,
    are_withheld,
    category,
    read_json_rows,
    text_field,
)
from palscope.evaluation._benchmarks.rules import in_order, strict
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, WITHHELD, Given, Question, Sheet
from palscope.evaluation._nearest import Embedder

_WORDS = re.compile(r"\w+")

SAYS = (
    "all words of the answer are in the prediction, and no word that only other choices have "
    "(the benchmark's string match)"
)


def words(text: str) -> set[str]:
    r"""The lower-cased runs of word characters (`\w+`)."""
    return set(_WORDS.findall(text.lower()))


def string_match(prediction: str, answer: str, choices: Sequence[str]) -> bool:
    """MMAU's rule (Sakshi et al. 2024, `evaluation.py`), which MMAR took over.

    Words are sets: order and number do not matter. A word that the answer shares with other choices
    counts for the answer. An answer without words (such as "♪") is matched by any prediction that
    has words, and none of the other choices'.
    """
    said, right = words(prediction), words(answer)
    wrong = set[str]().union(*(words(choice) for choice in choices)) - right
    return bool(said) and right <= said and not said & wrong


def prompt(question: Question) -> str:
    """The question with its choices. The wording is ours: the benchmarks prescribe none."""
    return f"{question.text.strip()} Choose from: {', '.join(question.choices)}."


def questions_reader(audio: str, groups: Sequence[str]) -> Callable[[Path], list[Question]]:
    """A reader of rows with `id, question, choices, answer`.

    Args:
        audio: the field that names the clip.
        groups: fields that are categories, the coarsest first.
    """

    def read(path: Path) -> list[Question]:
        rows = _rows(path)
        withheld = are_withheld((row for _, row in rows), "answer")
        return [_question(path, n, row, audio, groups, withheld) for n, row in rows]

    return read


def predictions_reader(
    field: str, audio: str, groups: Sequence[str]
) -> Callable[[Path, Sequence[Question] | None], list[Given]]:
    """A reader of predictions: the question file's rows with the answer in `field`.

    With the questions at hand, rows need no more than `id` and `field`.
    """

    def read(path: Path, questions: Sequence[Question] | None) -> list[Given]:
        rows = _rows(path)
        if not any(field in row for _, row in rows):
            found = ", ".join(str(name) for name in rows[0][1])
            raise BenchmarkError(
                f"{path}: no row has the field {field}, in which this benchmark's predictions "
                f"stand; row 1 has {found}."
            )
        withheld = are_withheld((row for _, row in rows), "answer")
        if withheld and questions is None and "choices" in rows[0][1]:
            raise BenchmarkError(f"{path}: {WITHHELD}")
        given: list[Given] = []
        for number, row in rows:
            whole = questions is None or (not withheld and "answer" in row)
            question = _question(path, number, row, audio, groups, False) if whole else None
            given.append(Given(_id(path, number, row, audio), row.get(field, NOT_GIVEN), question))
        return given

    return read


def predicted_rows(field: str, pairs: Sequence[tuple[Question, str]]) -> list[Row]:
    """The question file's rows with the answers in `field`."""
    return [{**question.extra, field: answer} for question, answer in pairs]


def rules(sheet: Sheet, embedder: Embedder | None = None) -> Rules:
    """`official`, which passes over rows without a prediction, and `strict`, which does not."""
    del embedder
    texts = [answer for _, answer in sheet.rows if answer is not NOT_GIVEN]
    odd = sum(not isinstance(answer, str) for answer in texts)
    notes = [f"{odd} predictions are no text: the official script stops at them; passed over here"]
    return {
        "official": in_order(
            sheet,
            [
                judge(question, answer) if isinstance(answer, str) else None
                for question, answer in sheet.rows
            ],
            f"{SAYS}; rows without a prediction are passed over, repeated ones count again",
            notes if odd else (),
        ),
        "strict": strict(sheet, judge, SAYS),
    }


def judge(question: Question, answer: Any) -> bool:
    """Whether an answer is right; one that is no text is not."""
    return isinstance(answer, str) and string_match(answer, question.truth[0], question.choices)


def option_of(question: Question) -> str:
    """The right choice, as a model ranks it; empty where it is withheld."""
    return question.truth[0] if question.truth else ""


def options(question: Question) -> tuple[str, ...]:
    """The choices, each once: some questions of MMAU have one twice."""
    return tuple(dict.fromkeys(question.choices))


def _rows(path: Path) -> list[tuple[int, Row]]:
    return list(enumerate(read_json_rows(path), 1))


def _id(path: Path, number: int, row: Row, audio: str) -> str:
    return text_field(path, number, row, "id" if "id" in row else audio)


def _question(
    path: Path, number: int, row: Row, audio: str, groups: Sequence[str], withheld: bool
) -> Question:
    choices = row.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BenchmarkError(
            f"{path}, row {number}: field choices is {choices!r}; expected a list of answers."
        )
    listed = cast("list[Any]", choices)
    if not all(isinstance(choice, str) for choice in listed):
        raise BenchmarkError(f"{path}, row {number}: field choices has entries that are no text.")
    clip = text_field(path, number, row, audio)
    return Question(
        id=_id(path, number, row, audio),
        audio=(clip,),
        text=text_field(path, number, row, "question"),
        choices=tuple(cast("list[str]", listed)),
        truth=answer_field(path, number, row, "answer", withheld=withheld),
        groups={field: category(row, field) for field in groups},
        extra=row,
    )

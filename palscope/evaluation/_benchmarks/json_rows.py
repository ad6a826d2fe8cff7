"""Questions with choices in JSON rows, and predictions, which are those rows with a field more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.files import (
    JsonRow,
    answer_field,
    are_withheld,
    category,
    read_json_rows,
    text_field,
)
from palscope.evaluation._benchmarks.sheet import NOT_GIVEN, WITHHELD, Given, Question


@dataclass(frozen=True)
class JsonRows:
    """How a benchmark writes its rows.

    Attributes:
        audio: the field that names the clip, and a row that has no `id`.
        answer: the field of the right answer.
        groups: fields that are categories, the coarsest first.
        offered: a field that rows with choices have.
        choices: those of a row, of which the file and the row's number are told for messages.
        given: the field in which predictions stand.
    """

    audio: str
    answer: str
    groups: Sequence[str]
    offered: str
    choices: Callable[[Path, int, JsonRow], tuple[str, ...]]
    given: str

    def questions(self, path: Path) -> list[Question]:
        """The rows of a question file."""
        rows = read_json_rows(path)
        withheld = are_withheld(rows, self.answer)
        return [self._question(path, number, row, withheld) for number, row in enumerate(rows, 1)]

    def predictions(self, path: Path, questions: Sequence[Question] | None) -> list[Given]:
        """The rows of a file of predictions.

        With the questions at hand, rows need no more than what names them and their prediction.
        """
        rows = read_json_rows(path)
        if not any(self.given in row for row in rows):
            found = ", ".join(map(str, rows[0]))
            raise BenchmarkError(
                f"{path}: no row has the field {self.given}, in which this benchmark's "
                f"predictions stand; row 1 has {found}."
            )
        withheld = are_withheld(rows, self.answer)
        if withheld and questions is None and self.offered in rows[0]:
            raise BenchmarkError(f"{path}: {WITHHELD}")
        given: list[Given] = []
        for number, row in enumerate(rows, 1):
            whole = questions is None or (not withheld and self.answer in row)
            question = self._question(path, number, row, False) if whole else None
            name = self._id(path, number, row)
            given.append(Given(name, row.get(self.given, NOT_GIVEN), question))
        return given

    def predicted(self, pairs: Sequence[tuple[Question, str]]) -> list[JsonRow]:
        """The question file's rows with answers in the field of predictions."""
        return [{**question.extra, self.given: answer} for question, answer in pairs]

    def _id(self, path: Path, number: int, row: JsonRow) -> str:
        return text_field(path, number, row, "id" if "id" in row else self.audio)

    def _question(self, path: Path, number: int, row: JsonRow, withheld: bool) -> Question:
        choices = self.choices(path, number, row)
        return Question(
            id=self._id(path, number, row),
            audio=(text_field(path, number, row, self.audio),),
            text=text_field(path, number, row, "question"),
            choices=choices,
            truth=answer_field(path, number, row, self.answer, withheld=withheld),
            groups={field: category(row, field) for field in self.groups},
            extra=row,
        )

"""Scores of a sheet of answers by a rule, as rows that can be averaged, resampled and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from palscope.evaluation._benchmarks.sheet import Question, Sheet


class AnswerScore(NamedTuple):
    """What one answer got.

    A score is a ratio of sums, `got` over `of`: an accuracy where `of` is one and `got` one or
    zero, a mean where `got` is a number, a micro-averaged F1 where `got` is twice the hits and `of`
    that and all misses. `id` names what is scored, `label` the class where an answer has several.
    """

    id: str
    question: Question
    got: float
    of: float = 1.0
    label: str = ""


@dataclass(frozen=True)
class ScoringRule:
    """A way to score answers, applied.

    `says` is the rule in a sentence, `measure` what its score is called. `scores` has every answer
    that counts. `skipped` are ids that the rule passes over, `notes` what is odd about the answers.
    """

    says: str
    measure: str
    scores: tuple[AnswerScore, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """`id, clip, got, of` and a column a category: one row a score."""
        rows: list[dict[str, Any]] = []
        for score in self.scores:
            clip = score.question.audio[0] if score.question.audio else score.question.id
            groups = dict(score.question.groups) | ({"label": score.label} if score.label else {})
            rows.append({"id": score.id, "clip": clip, **groups, "got": score.got, "of": score.of})
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Unknown:
    """A score that could not be computed, and why."""

    measure: str
    reason: str


def strict(
    sheet: Sheet, judge: Callable[[Question, Any], bool], says: str, measure: str = "accuracy"
) -> ScoringRule:
    """Every question counts once: unanswered, malformed or answered in several ways is wrong.

    Args:
        sheet: questions and answers.
        judge: whether an answer is right; False for one that is malformed.
        says: what is asked of an answer.
        measure: the score's name.
    """
    scores: list[AnswerScore] = []
    answers = sheet.answers()
    for question in sheet.questions:
        given = answers[question.id]
        # Repeats that say the same are one answer; of several answers none is the model's.
        plain = given[:1] if all(each == given[0] for each in given) else []
        right = bool(plain) and judge(question, plain[0])
        scores.append(AnswerScore(question.id, question, float(right)))
    return ScoringRule(
        f"{says}; every question counts, without a single answer as wrong", measure, (*scores,)
    )


def numbered(ids: Iterable[str]) -> list[str]:
    """The ids, with `#2`, `#3`… behind those that came before: names of rows."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for each in ids:
        seen[each] = seen.get(each, 0) + 1
        names.append(each if seen[each] == 1 else f"{each}#{seen[each]}")
    return names


def in_order(
    sheet: Sheet, verdicts: Sequence[bool | None], says: str, notes: Sequence[str] = ()
) -> ScoringRule:
    """Rows of a sheet as a script goes through them; None is a row that it passes over."""
    names = numbered(question.id for question, _ in sheet.rows)
    rows = list(zip(names, sheet.rows, verdicts, strict=True))
    return ScoringRule(
        says,
        "accuracy",
        tuple(
            AnswerScore(name, question, float(verdict))
            for name, (question, _), verdict in rows
            if verdict is not None
        ),
        skipped=tuple(name for name, _, verdict in rows if verdict is None),
        notes=(*notes,),
    )

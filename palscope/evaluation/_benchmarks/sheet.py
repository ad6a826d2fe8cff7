"""Questions and the answers given to them, as every benchmark's scorer takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from palscope.errors import BenchmarkError


class _NotGiven:
    def __repr__(self) -> str:
        return "no prediction"


NOT_GIVEN: Any = _NotGiven()
"""What stands for the prediction of a row that has none; an empty one is a prediction."""


WITHHELD = (
    "its answers are withheld, so there is nothing to score by; hand the predictions in where the "
    "benchmark scores them, or score them against a file that has the answers"
)


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `audio` are the names under which its clip may lie in the folder of audio; the first that
    exists is taken. `truth` is the answer: one, or all labels that sound, or all
    captions; nothing where a test set withholds it. `groups`
    are the benchmark's own categories; an empty value is none. `extra` is what the question file
    says and the stored predictions repeat.
    """

    id: str
    audio: tuple[str, ...]
    text: str
    choices: tuple[str, ...]
    truth: tuple[str, ...]
    groups: Mapping[str, str]
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def domain(self) -> str:
        """The coarsest category."""
        return next(iter(self.groups.values()), "") or "all"

    @property
    def label(self) -> str:
        """The finest category."""
        return [*self.groups.values(), ""][-1] if len(self.groups) > 1 else (*self.truth, "")[0]


class Given(NamedTuple):
    """An answer as a file of predictions holds it.

    `answer` is NOT_GIVEN, text, or whatever else the file has there; for several labels a list of
    them. `question` is the question that stands in the same row, where the format repeats it.
    """

    id: str
    answer: Any
    question: Question | None = None


@dataclass(frozen=True)
class Sheet:
    """Questions with their answers.

    `questions` has each question once. `rows` are question and answer as the predictions hold
    them, in their order, repeated where they are: what an official script goes through. `unknown`
    are ids without a question, `repeated` ids with several answers, `revised` ids whose question,
    choices or answer is another in the predictions than in the question file.
    """

    questions: tuple[Question, ...]
    rows: tuple[tuple[Question, Any], ...]
    unknown: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    revised: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Sequence[Given], questions: Sequence[Question] | None = None) -> Sheet:
        """Join predictions to questions by id.

        Args:
            given: the predictions.
            questions: from a question file: theirs are the truths. None: the questions that stand
                beside the predictions.

        Raises:
            BenchmarkError: a question stands twice in the question file, no prediction's id is
                known, or predictions hold no questions and none were given.
        """
        if questions is None:
            if any(each.question is None for each in given):
                raise BenchmarkError(
                    "the predictions hold no questions; give the question file by --questions."
                )
            beside = [each.question for each in given if each.question is not None]
            known = {question.id: question for question in reversed(beside)}
            known = {question.id: known[question.id] for question in beside}
            rows = [(q, each.answer) for q, each in zip(beside, given, strict=True)]
        else:
            known = {question.id: question for question in questions}
            if len(known) < len(questions):
                ids = [question.id for question in questions]
                twice = next(name for name in ids if ids.count(name) > 1)
                raise BenchmarkError(f"the question file has two questions with the id {twice!r}.")
            rows = [(known[each.id], each.answer) for each in given if each.id in known]
            if given and not rows:
                raise BenchmarkError(
                    f"no prediction belongs to a question: ids such as {given[0].id!r} were "
                    f"predicted, {next(iter(known), None)!r} were asked; are these files of one "
                    "benchmark?"
                )
        seen: dict[str, int] = {}
        for question, answer in rows:
            if answer is not NOT_GIVEN:
                seen[question.id] = seen.get(question.id, 0) + 1
        revised = [
            each.id
            for each in given
            if each.question is not None
            and each.id in known
            and _content(each.question) != _content(known[each.id])
        ]
        return cls(
            questions=tuple(known.values()),
            rows=tuple(rows),
            unknown=tuple(each.id for each in given if each.id not in known),
            repeated=tuple(name for name, count in seen.items() if count > 1),
            revised=tuple(dict.fromkeys(revised)),
        )

    def answers(self) -> dict[str, list[Any]]:
        """All that was answered to each question, by id; an empty list for an open one."""
        found: dict[str, list[Any]] = {question.id: [] for question in self.questions}
        for question, answer in self.rows:
            if answer is not NOT_GIVEN:
                found[question.id].append(answer)
        return found


def content_digest(questions: Sequence[Question]) -> str:
    """The first 16 hex digits of the sha256 of ids, questions, choices and truths, sorted by id.

    Files that differ in order, in other fields or in predictions have the same: it names a
    benchmark's version.
    """
    contents = sorted([each.id, *_content(each)] for each in questions)
    text = json.dumps(contents, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(question: Question) -> list[Any]:
    return [question.text, list(question.choices), list(question.truth)]

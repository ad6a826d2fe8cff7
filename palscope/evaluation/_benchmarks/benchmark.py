"""What a benchmark is: how its files are read, what a model is asked, and the rules that score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from palscope.evaluation._benchmarks.rules import ScoringRule, Unknown
from palscope.evaluation._benchmarks.sheet import Given, Question, Sheet
from palscope.evaluation._nearest import Embedder

Rules = dict[str, ScoringRule | Unknown]
"""By name; the first is the one that is reported."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: as the command line has it.
        questions_are: the question file's form, in a few words.
        predictions_are: the stored predictions' form.
        read_questions: the questions of a file. BenchmarkError names file, row and field.
        read_predictions: what a file of stored predictions says, in its order. The questions are
            None where the file is to speak for itself.
        write_predictions: stores questions and answers in the same form.
        prompt: what a model is asked.
        options: the answers that a model's log-likelihood ranks; none for open answers.
        option_of: which of them is right.
        rules: scores a sheet, with an embedder where the user names one.
        max_new_tokens: room for an answer.
        predictions_name: of the file in which a model's answers are stored.
        ranking_first: where a model is asked, what its log-likelihoods rank first is reported
            before its words.
        versions: of known question files, by `content_digest`.
    """

    name: str
    questions_are: str
    predictions_are: str
    read_questions: Callable[[Path], list[Question]]
    read_predictions: Callable[[Path, Sequence[Question] | None], list[Given]]
    write_predictions: Callable[[Path, Sequence[tuple[Question, str]]], None]
    prompt: Callable[[Question], str]
    options: Callable[[Question], tuple[str, ...]]
    option_of: Callable[[Question], str]
    rules: Callable[[Sheet, Embedder | None], Rules]
    max_new_tokens: int = 32
    predictions_name: str = "answers.json"
    ranking_first: bool = False
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

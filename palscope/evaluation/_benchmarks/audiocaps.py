"""AudioCaps (Kim et al. 2019): captions, scored against five written by people.

The question file is the test split's CSV, `audiocap_id, youtube_id, start_time, caption`, five rows
a clip. Predictions are a CSV with `file_name, caption_predicted`, as caption evaluation tools take
them; the name is the clip's YouTube id, with or without ".wav".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palscope._files import write_table
from palscope.evaluation._benchmarks.benchmark import Benchmark, Rules
from palscope.evaluation._benchmarks.files import read_csv_rows, text_field
from palscope.evaluation._benchmarks.rules import AnswerScore, ScoringRule, Unknown
from palscope.evaluation._benchmarks.sheet import Given, Question, Sheet
from palscope.evaluation._captions import METRICS, CaptionScores, caption_scores
from palscope.evaluation._nearest import Embedder


def rules(sheet: Sheet, embedder: Embedder | None = None) -> Rules:
    """Each metric over the clips that have a caption, and `strict`: clips without one score zero.

    Of clips with several captions the first counts.
    """
    del embedder
    given = {name: each[0] for name, each in sheet.answers().items() if each}
    captioned = [question for question in sheet.questions if question.id in given]
    scores = caption_scores(
        [str(given[question.id]) for question in captioned],
        [list(question.truth) for question in captioned],
    )
    found: Rules = {name: _rule(name, sheet, captioned, scores, strict=False) for name in METRICS}
    return found | {
        f"strict_{name}": _rule(name, sheet, captioned, scores, strict=True)
        for name in scores.values
    }


def _rule(
    name: str, sheet: Sheet, captioned: Sequence[Question], scores: CaptionScores, *, strict: bool
) -> ScoringRule | Unknown:
    values = scores.values.get(name)
    if values is None:
        return Unknown(name, scores.reasons[name])
    by_id = {question.id: value for question, value in zip(captioned, values, strict=True)}
    counted = sheet.questions if strict else captioned
    says = (
        "clips without a caption score zero" if strict else "clips without a caption are left out"
    )
    return ScoringRule(
        f"{METRICS[name]}; {scores.tokens}; {says}",
        name,
        tuple(AnswerScore(each.id, each, by_id.get(each.id, 0.0)) for each in counted),
        skipped=tuple(q.id for q in sheet.questions if q.id not in by_id) if not strict else (),
    )


def read_questions(path: Path) -> list[Question]:
    """The clips, each with its captions."""
    clips: dict[str, list[str]] = {}
    columns = ("youtube_id", "start_time", "caption")
    for number, row in read_csv_rows(path, columns):
        name = text_field(path, number, row, "youtube_id")
        clips.setdefault(name, []).append(text_field(path, number, row, "caption"))
    return [
        Question(
            id=name,
            audio=(f"{name}.wav", f"Y{name}.wav", f"{name}.flac"),
            text="Describe the audio in one sentence.",
            choices=(),
            truth=tuple(captions),
            groups={},
        )
        for name, captions in clips.items()
    ]


def read_predictions(path: Path, questions: Sequence[Question] | None) -> list[Given]:
    """A CSV with `file_name, caption_predicted`; an empty caption is one."""
    del questions
    return [
        Given(
            text_field(path, number, row, "file_name").removesuffix(".wav"),
            row["caption_predicted"] or "",
        )
        for number, row in read_csv_rows(path, ("file_name", "caption_predicted"))
    ]


def write(path: Path, pairs: Sequence[tuple[Question, str]]) -> None:
    """Store captions in that form."""
    rows = ((question.id, answer) for question, answer in pairs)
    write_table(path, ("file_name", "caption_predicted"), rows)


def _prompt(question: Question) -> str:
    # Ours.
    return question.text


def _nothing(question: Question) -> Any:
    return ()


AUDIOCAPS = Benchmark(
    name="audiocaps",
    questions_are="the test split's CSV: audiocap_id, youtube_id, start_time, caption",
    predictions_are="a CSV with the columns file_name, caption_predicted",
    read_questions=read_questions,
    read_predictions=read_predictions,
    write_predictions=write,
    prompt=_prompt,
    options=_nothing,
    option_of=lambda question: question.truth[0],
    rules=rules,
    max_new_tokens=48,
    predictions_name="answers.csv",
)

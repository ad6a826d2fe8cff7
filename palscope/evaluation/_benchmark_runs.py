"""A benchmark, run and scored: by a model's answers, or by predictions that are stored already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palscope._files import write_json
from palscope._sweeps.record import file_hash
from palscope._sweeps.store import hold
from palscope.audio import load_audio
from palscope.audio._compose import SAMPLE_RATE
from palscope.errors import BenchmarkError
from palscope.evaluation._benchmarks.benchmark import Benchmark
from palscope.evaluation._benchmarks.rules import AnswerScore, ScoringRule, Unknown
from palscope.evaluation._benchmarks.sheet import WITHHELD, Question, Sheet, content_digest
from palscope.evaluation._items import EvaluationItem, take_evenly
from palscope.evaluation._nearest import Embedder
from palscope.evaluation._predictions import Prediction, goes_on, predict
from palscope.evaluation._ranking import Answerer
from palscope.evaluation._rows import score, write_rows

RANKING_SAYS = "the choice to which the model gives the highest log-likelihood, its end included"


def score_predictions(
    benchmark: Benchmark,
    predictions: Path,
    out: Path,
    *,
    questions: Path | None = None,
    embedder: Embedder | None = None,
    embedder_name: str | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Score stored predictions and write `scores.json` and `rows.parquet` to the folder `out`.

    Args:
        benchmark: whose form the predictions have.
        predictions: the file.
        out: a folder without a run, or with `resume` one with this run.
        questions: the question file: its truths count, and questions that no prediction answers
            are found missing. None: the questions that stand in the predictions.
        embedder: for open answers.
        embedder_name: its name, for the record.
        resume: go on in a folder that holds this run.

    Returns:
        What `scores.json` holds, as `evaluate_benchmark`.

    Raises:
        BenchmarkError: a file cannot be read, or predictions and questions do not fit together.
        PalscopeError: `out` holds another run, or another process writes to it.
    """
    asked = None if questions is None else benchmark.read_questions(questions)
    if asked is not None and _withheld(asked):
        raise BenchmarkError(f"{questions}: {WITHHELD}.")
    sheet = Sheet.of(benchmark.read_predictions(predictions, asked), asked)
    settings = {
        "benchmark": benchmark.name,
        "predictions": _file(predictions),
        "questions": None if questions is None else _file(questions),
        "embedder": embedder_name,
    }
    lock = hold(out)
    goes_on(out, settings, resume=resume)
    write_json(out / "settings.json", settings)
    rules = benchmark.rules(sheet, embedder)
    scores = _write(out, benchmark, asked or sheet.questions, sheet, rules, {"settings": settings})
    lock.release(force=True)
    return scores


def evaluate_benchmark(
    answerer: Answerer,
    benchmark: Benchmark,
    questions: Path,
    out: Path,
    *,
    audio: Path | None = None,
    model: str = "",
    embedder: Embedder | None = None,
    embedder_name: str | None = None,
    n: int | None = None,
    resume: bool = False,
    batch_size: int = 8,
    progress: bool = True,
) -> dict[str, Any]:
    """Ask a model a benchmark's questions, store its answers as they come, and score them.

    The answers are stored twice: in `predictions.jsonl` with log-likelihoods, and in the
    benchmark's own form, which is then scored as `score_predictions` would.

    Args:
        answerer: the model.
        benchmark: what to ask.
        questions: the question file.
        out: a folder without a run, or with `resume` one with this run.
        audio: the folder of the clips; None: the question file's own.
        model: names the weights, for the record.
        embedder: for open answers.
        embedder_name: its name, for the record.
        n: only so many questions, spread over the categories.
        resume: go on with the run that `out` holds.
        batch_size: questions asked at once.
        progress: show a bar.

    Returns:
        What `scores.json` holds: of the rule that is reported `accuracy` (or what else is
        measured, as fractions of one), `n`, `interval` (95 %, over clips) and
        `by_category`; the same of every other rule under its name, or "unknown" with the `reason`;
        `version` of the questions, `missing` and `unreadable` audio files, ids that are
        `unanswered`, `unknown`, `repeated` or `revised`, and `settings`. The score of a test set
        that withholds its answers is "unknown": what is stored in its own form can be handed in.

    Raises:
        BenchmarkError: the question file cannot be read, or no question has its audio.
        PalscopeError: `out` holds another run, or another process writes to it.
    """
    everything = benchmark.read_questions(questions)
    Sheet.of((), everything)  # each id once: they name answers
    asked = everything if n is None else take_evenly(everything, n)
    folder = audio or questions.parent
    files = {question.id: find_audio(folder, question) for question in asked}
    missing = [question for question in asked if files[question.id] is None]
    if len(missing) == len(asked):
        raise BenchmarkError(
            f"none of {len(asked)} audio files is in {folder} (the first: {asked[0].audio[0]}); "
            "give the folder by --folder."
        )
    settings: dict[str, Any] = {
        "model": model,
        "benchmark": benchmark.name,
        "questions": _file(questions),
        "n": n,
        "embedder": embedder_name,
        "missing": [question.audio[0] for question in missing],
    }
    lock = hold(out)
    items = [
        _item(benchmark, question, file)
        for question in asked
        if (file := files[question.id]) is not None
    ]
    predictions = {
        each["key"]: each
        for each in predict(
            items,
            answerer,
            out,
            settings=settings,
            resume=resume,
            batch_size=batch_size,
            progress=progress,
        )
    }
    answered = [q for q in asked if "greedy" in predictions.get(q.id, {})]
    stored = out / benchmark.predictions_name
    benchmark.write_predictions(stored, [(q, predictions[q.id]["greedy"]) for q in answered])
    sheet = Sheet.of(benchmark.read_predictions(stored, asked) if answered else (), asked)
    withheld = _withheld(everything)
    rules = {"withheld": Unknown("accuracy", f"{WITHHELD}: {stored}")} if withheld else {}
    rules = rules or benchmark.rules(sheet, embedder)
    ranking = None if withheld else _ranking(benchmark, answered, predictions)
    ordered = (
        {"ranking": ranking, **rules} if benchmark.ranking_first else {**rules, "ranking": ranking}
    )
    scores = _write(
        out,
        benchmark,
        everything,
        sheet,
        {name: rule for name, rule in ordered.items() if rule is not None},
        {
            "missing": settings["missing"],
            "unreadable": [
                {"path": str(files[key]), "error": each["error"]}
                for key, each in predictions.items()
                if "error" in each
            ],
            "settings": settings,
        },
    )
    lock.release(force=True)
    return scores


def _withheld(questions: Sequence[Question]) -> bool:
    """Whether a question file has no answers."""
    return not any(question.truth for question in questions)


def find_audio(folder: Path, question: Question) -> Path | None:
    """The question's clip below `folder`: by its path there, else by its bare name; or None."""
    for name in question.audio:
        for place in (folder / name, folder / Path(name).name):
            if place.is_file():
                return place
    return None


def _item(benchmark: Benchmark, question: Question, file: Path) -> EvaluationItem:
    right = benchmark.option_of(question)
    return EvaluationItem(
        key=question.id,
        domain=question.domain,
        question=benchmark.prompt(question),
        answer=right,
        choices=benchmark.options(question),
        in_audio=(right,),
        audio=_loader(file),
    )


def _loader(file: Path) -> Callable[[], list[np.ndarray]]:
    return lambda: [load_audio(file, sample_rate=SAMPLE_RATE).samples]


def _ranking(
    benchmark: Benchmark, answered: Sequence[Question], predictions: Mapping[str, Prediction]
) -> ScoringRule | None:
    ranked = [question for question in answered if "best" in predictions[question.id]]
    if not ranked:
        return None
    scores = (
        AnswerScore(each.id, each, float(predictions[each.id]["best"] == benchmark.option_of(each)))
        for each in ranked
    )
    return ScoringRule(RANKING_SAYS, "accuracy", tuple(scores))


def _write(
    out: Path,
    benchmark: Benchmark,
    file: Sequence[Question],
    sheet: Sheet,
    rules: Mapping[str, ScoringRule | Unknown],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    digest = content_digest(file)
    tables = {name: rule.table() for name, rule in rules.items() if isinstance(rule, ScoringRule)}
    blocks = {name: _block(rule, tables.get(name)) for name, rule in rules.items()}
    reported = next(iter(blocks))
    scores: dict[str, Any] = {
        "benchmark": benchmark.name,
        "version": {
            "name": benchmark.versions.get(digest, "unknown"),
            "digest": digest,
            "questions": len(file),
        },
        "reported": reported,
        **blocks[reported],
        **{name: block for name, block in blocks.items() if name != reported},
        "unanswered": [name for name, given in sheet.answers().items() if not given],
        "unknown": list(sheet.unknown),
        "repeated": list(sheet.repeated),
        "revised": list(sheet.revised),
        **facts,
    }
    write_rows(out, tables)
    write_json(out / "scores.json", scores)
    return scores


def _block(rule: ScoringRule | Unknown, table: Any) -> dict[str, Any]:
    if isinstance(rule, Unknown):
        return {"measure": rule.measure, rule.measure: "unknown", "n": 0, "reason": rule.reason}
    return {
        "measure": rule.measure,
        **score(table, rule.measure),
        "rule": rule.says,
        "skipped": list(rule.skipped),
        "notes": list(rule.notes),
    }


def _file(path: Path) -> dict[str, str | None]:
    return {"path": str(path), "sha256": file_hash(path)}

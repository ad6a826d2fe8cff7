"""Score a model, or predictions that are stored, on a benchmark or on labelled clips of your own.

    python analyses/evaluate.py --model demo/pal --audio clips.csv --out runs/pal
    python analyses/evaluate.py --model demo/pal --benchmark mmau --questions mmau-test-mini.json \\
        --folder AUDIO --out runs/mmau
    python analyses/evaluate.py --benchmark mmau --predictions FILE --out runs/stored

Labelled clips are a manifest, a CSV with columns path, domain, label (paths relative to it); by
default those that come with the package. Answers are ranked among each domain's labels. Writes
scores.json, rows.parquet (for compare_scores.py) and, as they come, predictions.jsonl. A run that
was stopped goes on with --resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palscope._models.chat_format import prompt_settings
from palscope._published.loading import find_model, fingerprint
from palscope.analyses import Command, option
from palscope.analyses._items import BUNDLED
from palscope.analyses._options import GIVEN, LEFT_OUT, OptionError, StoredOptions
from palscope.analyses._process import set_prompt
from palscope.evaluation._benchmark_runs import evaluate_benchmark, score_predictions
from palscope.evaluation._benchmarks.registry import BENCHMARKS, find_benchmark
from palscope.evaluation._evaluate import evaluate_manifest
from palscope.evaluation._nearest import decoder_embedder, sentence_embedder
from palscope.evaluation._ranking import ModelAnswerer, open_answerer

OWN_EMBEDDER = "the model's own input embeddings"
OF_CLIPS = {"benchmark": LEFT_OUT}
OF_BENCHMARKS = {"benchmark": GIVEN}
ASKED = {"predictions": LEFT_OUT}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(StoredOptions):
    """Who is asked, and what."""

    model: str | None = option(None, "checkpoint folder or hub id", only_with=ASKED)
    audio: Path = option(BUNDLED, "labelled clips: a manifest", only_with=OF_CLIPS)
    split: str | None = option(None, "only clips of this split", only_with=OF_CLIPS)
    wordings: Literal["train", "heldout"] = option(
        "train", "heldout: those that the demo was never trained on", only_with=OF_CLIPS
    )
    swapped: bool = option(
        False,
        "each question gets another clip of its domain, with a different label",
        only_with=OF_CLIPS,
    )
    temporal: bool = option(False, "also ask about clips joined from these", only_with=OF_CLIPS)
    benchmark: str | None = option(
        None, f"in place of clips: {', '.join(BENCHMARKS)} (questions of your own)"
    )
    questions: Path | None = option(
        None,
        "the benchmark's question file; without a model it is not needed where the predictions "
        "hold the questions (mmau, mmar, mmsu)",
        only_with=OF_BENCHMARKS,
    )
    folder: Path | None = option(
        None,
        "of the benchmark's clips (default: the question file's)",
        only_with=OF_BENCHMARKS | ASKED,
    )
    predictions: Path | None = option(
        None,
        "score these in place of a model, in the benchmark's form",
        only_with=OF_BENCHMARKS,
    )
    embedder: str | None = option(
        None,
        "sentence-transformers model that matches open answers to labels (esc50, esc10; default: "
        f"{OWN_EMBEDDER})",
        only_with=OF_BENCHMARKS,
    )
    n: int | None = option(
        None, "so many clips of each domain, or questions of a benchmark", least=1, only_with=ASKED
    )
    system: str | None = option(
        None, "system message (default: the chat format's own)", only_with=ASKED
    )
    date: str | None = option(
        None, "what the chat format takes for today's, where it asks", only_with=ASKED
    )


def evaluated(given: EvaluateOptions) -> None:
    """Score what was asked for, and print it."""
    if given.benchmark is None:
        on_clips(given)
    elif given.predictions is not None:
        stored(given)
    else:
        on_benchmark(given)


def on_clips(given: EvaluateOptions) -> None:
    """Labelled clips, asked of a model."""
    answerer, name = answerer_of(given)
    scores = evaluate_manifest(
        answerer,
        given.audio,
        given.out,
        model=name,
        audio="swapped" if given.swapped else "own",
        split=given.split,
        wordings=given.wordings,
        n=given.n,
        temporal=given.temporal,
        resume=given.resume,
    )
    table = {"all": scores, **scores["by_domain"], **scores.get("temporal", {})}
    for row, score in table.items():
        print(line(row, score))
    lost(given, scores)


def on_benchmark(given: EvaluateOptions) -> None:
    """A benchmark, asked of a model."""
    benchmark = find_benchmark(str(given.benchmark))
    if given.questions is None:
        raise OptionError(
            f"--benchmark {benchmark.name} needs --questions: {benchmark.questions_are}."
        )
    answerer, name = answerer_of(given, max_new_tokens=benchmark.max_new_tokens)
    if given.embedder is None:
        embedder = decoder_embedder(answerer.model, answerer.processor)
    else:
        embedder = sentence_embedder(given.embedder)
    scores = evaluate_benchmark(
        answerer,
        benchmark,
        given.questions,
        given.out,
        audio=given.folder,
        model=name,
        embedder=embedder,
        embedder_name=given.embedder or OWN_EMBEDDER,
        n=given.n,
        resume=given.resume,
    )
    report(given, scores)
    lost(given, scores)


def stored(given: EvaluateOptions) -> None:
    """Stored predictions, without a model."""
    assert given.predictions is not None
    embedder = None if given.embedder is None else sentence_embedder(given.embedder)
    scores = score_predictions(
        find_benchmark(str(given.benchmark)),
        given.predictions,
        given.out,
        questions=given.questions,
        embedder=embedder,
        embedder_name=given.embedder,
        resume=given.resume,
    )
    report(given, scores)


def answerer_of(given: EvaluateOptions, **options: Any) -> tuple[ModelAnswerer, str]:
    """The model of `--model` as an answerer, and the name of its weights and its prompts."""
    if given.model is None:
        raise OptionError("give a checkpoint by --model, or stored answers by --predictions.")
    found = find_model(given.model)
    name = f"{given.model} {fingerprint(found)}"
    answerer = open_answerer(found, **options)
    set_prompt(answerer.processor, given.system, given.date)
    date = prompt_settings(answerer.processor)["date"]
    told = {"system": given.system, "date": date}
    name += "".join(f" {key}={value!r}" for key, value in told.items() if value is not None)
    return answerer, name


def report(given: EvaluateOptions, scores: dict[str, Any]) -> None:
    """A benchmark's scores, rule by rule, then the reported one's categories."""
    version = scores["version"]
    print(
        f"{scores['benchmark']}: {version['questions']} questions, version {version['name']} "
        f"({version['digest']})"
    )
    blocks = {name: each for name, each in scores.items() if isinstance(each, dict)}
    blocks = {name: each for name, each in blocks.items() if "measure" in each}
    for name, block in {scores["reported"]: scores, **blocks}.items():
        measure = block["measure"]
        if block[measure] == "unknown":
            print(f"{name}: {measure} unknown: {block['reason']}")
            continue
        print(f"{name}: {figure(block, measure)}\n    rule: {block['rule']}")
        if block["skipped"]:
            print(f"    {len(block['skipped'])} rows passed over")
        for note in block["notes"]:
            print(f"    note: {note}")
    for field, values in scores.get("by_category", {}).items():
        print(f"by {field} ({scores['reported']})")
        for value, block in values.items():
            print(f"    {value:34} {figure(block, scores['measure'])}")
    for kind, what in {
        "unanswered": "questions have no prediction",
        "unknown": "predictions belong to no question",
        "repeated": "questions have several predictions",
        "revised": "questions are worded otherwise in the predictions: of another version?",
    }.items():
        if scores[kind]:
            print(f"{len(scores[kind])} {what}: see {given.out / 'scores.json'}")


def lost(given: EvaluateOptions, scores: dict[str, Any]) -> None:
    """How many audio files could not be heard."""
    for kind in ("missing", "unreadable"):
        if scores[kind]:
            print(f"{len(scores[kind])} audio files {kind}: see {given.out / 'scores.json'}")


def figure(block: dict[str, Any], measure: str) -> str:
    """A score with its interval: shares in percent, caption metrics as they are."""
    if not block["n"]:
        return "no rows answered"
    show = percent if measure in ("accuracy", "micro_f1") else "{:6.3f}".format
    bounds = block["interval"]
    interval = "" if bounds is None else f" [{show(bounds[0])}, {show(bounds[1])}]"
    each = ", ".join(show(value).strip() for value in block.get("values", ()))
    by_clip = f" (by clip: {each})" if each else ""
    return f"{measure} {show(block[measure])}{interval} of {block['n']}{by_clip}"


def line(name: str, score: dict[str, Any]) -> str:
    """One row of the printed table, in percent."""
    if not score["n"]:
        return f"{name:18} no rows answered"
    bounds = score["interval"]
    interval = "" if bounds is None else f" [{percent(bounds[0])}, {percent(bounds[1])}]"
    text = f"{name:18} {percent(score['accuracy'])}{interval} "
    text += f"of {score['n']}, greedy answer exact {percent(score['exact_match'])}"
    if "follows_audio" in score:
        text += f", follows the audio {percent(score['follows_audio'])}"
    return text


def percent(fraction: float) -> str:
    return f"{100 * fraction:5.1f} %"


COMMAND = Command("evaluate", EvaluateOptions, evaluated)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))

"""Score a model, or predictions that are stored, on a benchmark or on labelled clips of your own.

    python analyses/evaluate.py --model demo/pal --manifest clips.csv --out runs/pal
    python analyses/evaluate.py --model demo/pal --benchmark mmau --questions mmau-test-mini.json \\
        --audio AUDIO --out runs/mmau
    python analyses/evaluate.py --benchmark mmau --predictions FILE --out runs/stored

A manifest is a CSV with columns path, domain, label (paths relative to it); answers are ranked
among each domain's labels. Writes scores.json, rows.parquet (for compare_scores.py) and, as they
come, predictions.jsonl. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from palscope._models.chat_format import prompt_settings
from palscope._published.loading import find_model, fingerprint
from palscope._sweeps import commands
from palscope._sweeps.commands import count
from palscope.errors import BenchmarkError
from palscope.evaluation._benchmark_runs import evaluate_benchmark, score_predictions
from palscope.evaluation._benchmarks.registry import BENCHMARKS
from palscope.evaluation._evaluate import evaluate_manifest
from palscope.evaluation._nearest import decoder_embedder, sentence_embedder
from palscope.evaluation._ranking import ModelAnswerer, open_answerer

OWN_EMBEDDER = "the model's own input embeddings"
MANIFEST_ONLY = ("split", "wordings", "temporal")


def main() -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="checkpoint folder or hub id")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--manifest", type=Path, help="labelled clips")
    asked.add_argument(
        "--benchmark",
        choices=list(BENCHMARKS),
        help="a public one, or csv: questions of your own",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--audio",
        help="of a benchmark: the folder of its clips (default: the question file's). Of a "
        "manifest: own, or swapped: each question hears another clip of its domain with a "
        "different label",
    )
    commands.add_prompt(parser)
    parser.add_argument("--limit", type=count, help="only so many rows, spread over the labels")
    parser.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    own = parser.add_argument_group("with --manifest")
    own.add_argument("--split", help="only rows with this value in the column split")
    own.add_argument(
        "--wordings",
        choices=["train", "heldout"],
        help="heldout: wordings that the demo was never trained on",
    )
    own.add_argument(
        "--temporal", action="store_true", help="also ask about clips joined from the manifest's"
    )
    public = parser.add_argument_group("with --benchmark")
    public.add_argument(
        "--questions",
        type=Path,
        help="the benchmark's question file; without a model it is not "
        "needed where the predictions hold the questions (mmau, mmar, mmsu)",
    )
    public.add_argument(
        "--predictions", type=Path, help="score these in place of a model, in the benchmark's form"
    )
    public.add_argument(
        "--embedder",
        help="sentence-transformers model that matches open answers to labels (esc50, esc10; "
        f"default: {OWN_EMBEDDER})",
    )
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Score what was asked for, and print it."""
    if given.manifest is not None:
        on_manifest(given)
    elif given.predictions is not None:
        stored(given)
    else:
        on_benchmark(given)


def on_manifest(given: Namespace) -> None:
    """Labelled clips, asked of a model."""
    if given.audio not in (None, "own", "swapped"):
        raise BenchmarkError(f"--audio {given.audio}: with --manifest give own or swapped.")
    refuse(given, ("questions", "predictions", "embedder"), "--manifest")
    answerer, name = open_model(given)
    scores = evaluate_manifest(
        answerer,
        given.manifest,
        given.out,
        model=name,
        audio=given.audio or "own",
        split=given.split,
        wordings=given.wordings or "train",
        limit=given.limit,
        temporal=given.temporal,
        resume=given.resume,
    )
    table = {"all": scores, **scores["by_domain"], **scores.get("temporal", {})}
    for row, score in table.items():
        print(line(row, score))
    lost(given, scores)


def on_benchmark(given: Namespace) -> None:
    """A benchmark, asked of a model."""
    refuse(given, MANIFEST_ONLY, "--benchmark")
    benchmark = BENCHMARKS[given.benchmark]
    if given.questions is None:
        raise BenchmarkError(
            f"--benchmark {benchmark.name} needs --questions: {benchmark.questions_are}."
        )
    answerer, name = open_model(given, max_new_tokens=benchmark.max_new_tokens)
    if given.embedder is None:
        embedder = decoder_embedder(answerer.model, answerer.processor)
    else:
        embedder = sentence_embedder(given.embedder)
    scores = evaluate_benchmark(
        answerer,
        benchmark,
        given.questions,
        given.out,
        audio=None if given.audio is None else Path(given.audio),
        model=name,
        embedder=embedder,
        embedder_name=given.embedder or OWN_EMBEDDER,
        limit=given.limit,
        resume=given.resume,
    )
    report(given, scores)
    lost(given, scores)


def stored(given: Namespace) -> None:
    """Stored predictions, without a model."""
    idle = (*MANIFEST_ONLY, "model", "audio", "limit", "system", "date")
    refuse(given, idle, "--predictions")
    embedder = None if given.embedder is None else sentence_embedder(given.embedder)
    scores = score_predictions(
        BENCHMARKS[given.benchmark],
        given.predictions,
        given.out,
        questions=given.questions,
        embedder=embedder,
        embedder_name=given.embedder,
        resume=given.resume,
    )
    report(given, scores)


def open_model(given: Namespace, **options: Any) -> tuple[ModelAnswerer, str]:
    """The model of `--model` as an answerer, and the name of its weights and its prompts."""
    if given.model is None:
        raise BenchmarkError("give a checkpoint by --model, or stored answers by --predictions.")
    found = find_model(given.model)
    name = f"{given.model} {fingerprint(found)}"
    answerer = open_answerer(found, **options)
    commands.set_prompt(answerer.processor, given)
    date = prompt_settings(answerer.processor)["date"]
    told = {"system": given.system, "date": date}
    name += "".join(f" {key}={value!r}" for key, value in told.items() if value is not None)
    return answerer, name


def refuse(given: Namespace, names: tuple[str, ...], beside: str) -> None:
    """An option that would do nothing is an error."""
    for name in names:
        if getattr(given, name) not in (None, False):
            raise BenchmarkError(f"--{name} does not go with {beside}; leave it out.")


def report(given: Namespace, scores: dict[str, Any]) -> None:
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


def lost(given: Namespace, scores: dict[str, Any]) -> None:
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


if __name__ == "__main__":
    raise SystemExit(main())

"""Carry out one of the paper's experiments: train its systems, ask them, and compare.

    python analyses/reproduce.py lal_against_plits --data MANIFEST.csv --out runs/lal_against_plits
    python analyses/reproduce.py lal_against_plits --scale paper --data OPENAQA.json ALL.json \
        --audio FOLDER --benchmark esc50=esc50.csv:CLIPS --benchmark mmau=mmau.json:CLIPS --out DIR

An experiment is a YAML file (palscope/evaluation/paper) with the paper's claim and the systems at
two scales: `here`, on the demo's backbone and labelled clips, and `paper`. Trainings go to
--checkpoints, a folder a recipe and seed; experiments that share the folder share the trainings.

Writes marks.parquet (a row a question), costs.parquet (prefill and training step, side by side),
summary.csv (scores with intervals, over seeds, and differences from the baseline, paired), figures
(HTML, PNG, SVG, their numbers as CSV) and run.json. A training that was stopped goes on by itself;
the measurements of a folder go on with --resume.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch

from palscope._models.base_weights import base_fingerprint
from palscope._sweeps import commands
from palscope._sweeps.commands import count, workers
from palscope._sweeps.record import command_record, file_hash
from palscope._sweeps.store import Run
from palscope.datasets._manifest import read_manifest
from palscope.evaluation import _reproduce as reproduce
from palscope.evaluation._experiment import experiment_names, read_experiment, systems_of
from palscope.evaluation._placements import Questions
from palscope.plots import Caption
from palscope.plots import _experiment as plots
from palscope.training._curriculum import Place

NO_SETTING = ("out", "resume", "threads", "checkpoints", "cache", "workers", "train_only")


def main() -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "experiment", help=f"one of {', '.join(experiment_names())}, or a YAML file"
    )
    parser.add_argument("--scale", default="here", help="here (default) or paper")
    parser.add_argument(
        "--data", nargs="+", required=True, help="what is trained on, all or by stage"
    )
    parser.add_argument("--audio", type=Path, help="folder of the training data's sound")
    parser.add_argument(
        "--benchmark",
        action="append",
        default=[],
        metavar="NAME=QUESTIONS[:AUDIO]",
        help="a benchmark's question file, and its sound; without any, the data's validation rows",
    )
    parser.add_argument("--limit", type=count, help="so many validation clips of each domain")
    parser.add_argument("--seeds", type=int, nargs="+", help="others than the experiment's")
    parser.add_argument("--systems", nargs="+", help="these alone, and the baseline")
    parser.add_argument("--seconds", type=float, default=10.0, help="of sound in timed prompts")
    parser.add_argument("--repeats", type=count, default=5, help="of each timing")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--checkpoints", type=Path, help="of the trainings (OUT/checkpoints)")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="decoded clips")
    parser.add_argument("--workers", type=workers, default=1, help="processes that decode")
    parser.add_argument("--threads", type=count, help="CPU threads (default: all)")
    parser.add_argument("--train-only", action="store_true", help="measure another time")
    parser.add_argument("--resume", action="store_true", help="go on with the run that --out holds")
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    """Train, measure and draw."""
    if given.threads:
        torch.set_num_threads(given.threads)
    experiment = read_experiment(given.experiment)
    scale = reproduce.scale_of(experiment, given.scale, given.seeds, given.systems)
    files = dict(map(benchmark_files, given.benchmark))
    reproduce.check_answerable(scale, files)
    print(f"{experiment.title}. The paper: {experiment.claim}")
    place = Place(
        given.data, given.checkpoints or given.out / "checkpoints", given.cache, given.audio
    )
    variants = reproduce.train_systems(systems_of(scale), scale.seeds, place)
    if given.train_only:
        return
    settings = {k: str(v) for k, v in vars(given).items() if k not in NO_SETTING and v is not None}
    weights = {f"{v.name} {v.seed}": base_fingerprint(v.folder) for v in variants}
    data = {name: file_hash(Path(name)) for name in given.data}
    record = command_record(settings) | {"weights": weights, "data": data}
    results = Run.open(given.out, record, resume=given.resume)
    if files:
        marks = reproduce.ask_benchmarks(results, variants, files)
    else:
        rows = [clip for clip in read_manifest(given.data[0]) if clip.split == "validation"]
        marks = reproduce.ask_labelled(results, variants, Questions.about(rows, given.limit))
    timing = {"seconds": given.seconds, "repeats": given.repeats}
    costs = reproduce.costs_of(results, variants, scale.baseline, **timing)
    table = reproduce.summary(marks, costs, scale.baseline)
    if results.main:
        table.to_csv(given.out / "summary.csv", index=False)
        n = int(table.loc[table["set"] == table["set"].iloc[-1], "n"].max())
        caption = Caption(experiment.title, ", ".join(table["set"].unique()), n)
        plots.scores_by_system(table, caption=caption).save(given.out / "scores")
        for cost in plots.COST_LABELS:
            figure = plots.score_against_cost(table, cost, caption=caption)
            figure.save(given.out / f"score_by_{cost}")
        print(table[table["set"] == table["set"].iloc[-1]].to_string(index=False))
        print(f"results in {given.out}")
        results.finish()


def benchmark_files(text: str) -> tuple[str, reproduce.BenchmarkFiles]:
    """`NAME=QUESTIONS[:AUDIO]`, taken apart."""
    name, _, places = text.partition("=")
    questions, _, audio = places.partition(":")
    return name, reproduce.BenchmarkFiles(Path(questions), Path(audio) if audio else None)


if __name__ == "__main__":
    raise SystemExit(main())

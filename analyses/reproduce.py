"""Carry out one of the paper's experiments: train its systems, ask them, and compare.

    python analyses/reproduce.py lal_against_plits --data MANIFEST.csv --out runs/lal_against_plits
    python analyses/reproduce.py lal_against_plits --scale paper --data OPENAQA.json ALL.json \
        --folder FOLDER --benchmark esc50=esc50.csv:CLIPS --benchmark mmau=mmau.json:CLIPS --out DIR

An experiment is a YAML file (palscope/evaluation/paper) with the paper's claim and the systems at
two scales: `here`, on the demo's backbone and labelled clips, and `paper`. Trainings go to
--checkpoints, a folder a recipe and seed; experiments that share the folder share the trainings.

Writes marks.parquet (a row a question), costs.parquet (prefill and training step, side by side),
summary.csv (scores with intervals, over seeds, and differences from the baseline, paired), figures
(HTML, PNG, SVG, their numbers as CSV) and run.json. A training that was stopped goes on by itself;
the measurements of a folder go on with --resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from palscope._models.base_weights import base_fingerprint
from palscope._sweeps.record import command_record, file_hash
from palscope._sweeps.store import Run
from palscope.analyses import Command, option
from palscope.analyses._options import LEFT_OUT, StoredOptions, deciding
from palscope.datasets._manifest import read_manifest
from palscope.evaluation import _reproduce as reproduce
from palscope.evaluation._experiment import experiment_names, read_experiment, systems_of
from palscope.evaluation._questions import Questions
from palscope.plots import Caption
from palscope.plots import _experiment as plots
from palscope.training._curriculum import TrainingPaths


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(StoredOptions):
    """Which experiment, on which data."""

    experiment: str = option(
        ..., f"one of {', '.join(experiment_names())}, or a YAML file", positional=True
    )
    scale: str = option("here", "here or paper")
    data: tuple[str, ...] = option(..., "what is trained on, all or by stage")
    folder: Path | None = option(None, "of the training data's sound (default: beside the data)")
    benchmark: tuple[str, ...] = option(
        (),
        "NAME=QUESTIONS[:AUDIO]: a benchmark's question file, and the folder of its sound; without "
        "any, the data's validation rows are asked",
    )
    n: int | None = option(
        None,
        "so many validation clips of each domain (default: all)",
        least=1,
        only_with={"benchmark": LEFT_OUT},
    )
    seeds: tuple[int, ...] = option((), "others than the experiment's")
    systems: tuple[str, ...] = option((), "these alone, and the baseline")
    seconds: float = option(10.0, "of sound in timed prompts", unit="s")
    repeats: int = option(5, "of each timing", least=1)
    checkpoints: Path | None = option(
        None, "folder of the trainings (default: OUT/checkpoints)", decides=False
    )
    cache: Path = option(Path("runs/cache"), "decoded clips", decides=False)
    workers: int = option(1, "processes that decode", least=0, decides=False)
    threads: int | None = option(None, "of the CPU (default: all)", least=1, decides=False)
    train_only: bool = option(False, "measure another time", decides=False)


def reproduced(given: ReproduceOptions) -> None:
    """Train, measure and draw."""
    if given.threads:
        torch.set_num_threads(given.threads)
    experiment = read_experiment(given.experiment)
    scale = reproduce.scale_of(experiment, given.scale, given.seeds, given.systems or None)
    files = dict(map(benchmark_files, given.benchmark))
    reproduce.check_answerable(scale, files)
    print(f"{experiment.title}. The paper: {experiment.claim}")
    trained = given.checkpoints or given.out / "checkpoints"
    paths = TrainingPaths(given.data, trained, given.cache, given.folder, given.workers)
    variants = reproduce.train_systems(systems_of(scale), scale.seeds, paths)
    if given.train_only:
        return
    weights = {f"{v.name} {v.seed}": base_fingerprint(v.folder) for v in variants}
    data = {name: file_hash(Path(name)) for name in given.data}
    record = command_record(deciding(given)) | {"weights": weights, "data": data}
    results = Run.open(given.out, record, resume=given.resume)
    if files:
        marks = reproduce.ask_benchmarks(results, variants, files)
    else:
        rows = [clip for clip in read_manifest(given.data[0]) if clip.split == "validation"]
        marks = reproduce.ask_labelled(results, variants, Questions.about(rows, given.n))
    costs = reproduce.costs_of(
        results, variants, scale.baseline, seconds=given.seconds, repeats=given.repeats
    )
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


COMMAND = Command("reproduce", ReproduceOptions, reproduced)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))

"""Carrying out an experiment: every system trained, asked and timed, then set side by side."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from palscope._files import make_folder
from palscope._models.base_weights import base_fingerprint
from palscope._models.scoring import with_answers
from palscope._routing import Route
from palscope._routing.notation import route_to_text
from palscope._statistics import Values, difference_of_scores, interval_columns, score_of
from palscope._sweeps import processes
from palscope._sweeps.record import file_hash
from palscope._sweeps.shards import read_shards
from palscope._sweeps.store import Run
from palscope.errors import RecipeError
from palscope.evaluation._accuracy import ranked_answers
from palscope.evaluation._benchmark_runs import evaluate_benchmark
from palscope.evaluation._benchmarks.registry import find_benchmark
from palscope.evaluation._experiment import OWN, Experiment, ExperimentScale, System
from palscope.evaluation._questions import Questions
from palscope.evaluation._ranking import ModelAnswerer, open_answerer
from palscope.evaluation._rows import ROWS
from palscope.measures._cost import (
    prefill,
    prefill_costs,
    timed_prompt,
    training_step,
    training_step_costs,
)
from palscope.training._curriculum import TrainingPaths, stage_folders, train_recipe
from palscope.training._recipe import Recipe
from palscope.training._trained import prepare

ALL = "all"
"""All sets of questions together, each question alike."""
TIMED_ROWS = 4
"""Clips of a timed training step."""


@dataclass(frozen=True)
class BenchmarkFiles:
    """Where a benchmark's questions lie, and the folder of its sound where that is another."""

    questions: Path
    audio: Path | None = None


@dataclass(frozen=True)
class Variant:
    """A trained system on one route.

    Attributes:
        system: what was trained.
        seed: of its training.
        under: name of the route.
        route: the route; None for the checkpoint's own.
        folder: the checkpoint.
    """

    system: System
    seed: int
    under: str
    route: Route | None
    folder: Path

    @property
    def name(self) -> str:
        """Of the system, and of the route where that is not its own."""
        return self.system.name if self.route is None else f"{self.system.name}, {self.under}"


def train_systems(
    systems: Sequence[System], seeds: Sequence[int], paths: TrainingPaths
) -> list[Variant]:
    """Train what is not trained yet: all systems with the first seed, then with the next.

    Args:
        systems: of an experiment.
        seeds: each system is trained once for each.
        paths: its `out` gets a folder a recipe; experiments may share it, and the trainings in it.

    Returns:
        A variant for each system, seed and route.
    """
    variants: list[Variant] = []
    for seed in seeds:
        for system in systems:
            last = _trained(system.recipe, seed, paths)
            variants.append(Variant(system, seed, OWN, None, last))
            variants += [
                Variant(system, seed, under, route, last) for under, route in system.under.items()
            ]
    return variants


def _trained(recipe: Recipe, seed: int, paths: TrainingPaths) -> Path:
    """The last stage's checkpoint. Recipes that begin alike share what they have in common."""
    out = paths.out / folder_name(recipe) / f"seed{seed}"
    *earlier, _ = recipe.stages.items()
    if earlier:
        before = _trained(recipe.model_copy(update={"stages": dict(earlier)}), seed, paths)
        make_folder(out)
        for folder in stage_folders(recipe, out)[:-1]:
            if processes.rank() == 0 and not folder.exists():
                folder.symlink_to((before.parent / folder.name).resolve())
        processes.wait()
    return train_recipe(recipe, replace(paths, out=out), seed=seed)[-1]


def folder_name(recipe: Recipe) -> str:
    """Names a training by all that its recipe says, so that experiments share it."""
    plain = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.sha256(plain.encode()).hexdigest()[:10]
    return f"{re.sub('[^A-Za-z0-9]+', '-', recipe.route)}-{digest}"


def ask_labelled(results: Run, variants: Sequence[Variant], questions: Questions) -> pd.DataFrame:
    """Ask every variant about labelled clips, their domain's labels ranked.

    Returns:
        The stored table `marks`: a row a (variant, item): `variant, system, under, seed, set` (the
        domain), `clip`, `got` (1 where right, else 0) and `of` (1).
    """

    def measure(variant: Variant) -> pd.DataFrame:
        answerer = open_variant(variant)
        answers: Any = ranked_answers(answerer, questions.items, questions.asked)
        return _marks(variant, answers["domain"], answers["clip"], answers["correct"], 1.0)

    return _stored(results, variants, measure, questions.digest)


def ask_benchmarks(
    results: Run, variants: Sequence[Variant], files: Mapping[str, BenchmarkFiles]
) -> pd.DataFrame:
    """Ask every variant the questions of benchmarks.

    Answers and scores of each are kept in `benchmarks/VARIANT/NAME` in the run's folder.

    Returns:
        As `ask_labelled`; `set` is the benchmark, `got` and `of` are those of the rule that it
        reports.
    """

    def measure(variant: Variant) -> pd.DataFrame:
        tables: list[pd.DataFrame] = []
        for name, where in files.items():
            benchmark = find_benchmark(name)
            answerer = replace(open_variant(variant), max_new_tokens=benchmark.max_new_tokens)
            out = results.folder / "benchmarks" / _key(variant).replace(" ", "-") / name
            scores = evaluate_benchmark(
                answerer,
                benchmark,
                where.questions,
                out,
                audio=where.audio,
                model=base_fingerprint(variant.folder),
                resume=True,
            )
            rows: Any = read_shards(out / ROWS)
            rows = rows[rows["rule"] == scores["reported"]]
            tables.append(_marks(variant, name, rows["clip"], rows["got"], rows["of"]))
        return pd.concat(tables, ignore_index=True)

    content = " ".join(f"{name} {file_hash(where.questions)}" for name, where in files.items())
    return _stored(results, variants, measure, content)


def costs_of(
    results: Run, variants: Sequence[Variant], baseline: str, *, seconds: float, repeats: int
) -> pd.DataFrame:
    """Time and memory of prefill and of a training step, of each system with the first seed.

    Args:
        results: the run, which keeps the table `costs`.
        variants: all of them.
        baseline: the system to whose own route the ratios are.
        seconds: of noise in the timed prompts.
        repeats: of each timing.

    Returns:
        One row a variant's name: the columns of `prefill_costs` and, for own routes, those of
        `training_step_costs`; and `trained_parameters`, by the last stage of its recipe.
    """
    first = [each for each in variants if each.seed == variants[0].seed]

    def measure(every: Sequence[Variant]) -> pd.DataFrame:
        # Prefills are timed before anything is made trainable: adapters would slow them.
        opened = {each.folder: open_variant(replace(each, route=None)) for each in every}
        prefills: dict[str, Any] = {}
        for variant in every:
            model, processor = opened[variant.folder].model, opened[variant.folder].processor
            inputs = timed_prompt(processor, seconds, model.device)
            prefills[variant.name] = prefill(model, inputs, variant.route or model.route)
        table: Any = prefill_costs(prefills, baseline, repeats=repeats)
        steps: dict[str, Any] = {}
        trained: dict[str, int] = {}
        for variant in every:
            if variant.route is not None:
                continue
            model, processor = opened[variant.folder].model, opened[variant.folder].processor
            stage = list(variant.system.recipe.stages.values())[-1]
            prepare(cast(Any, model), stage.train, bf16=False)
            batch = timed_prompt(processor, seconds, "cpu", TIMED_ROWS)
            batch = with_answers(processor, batch, ["a dog"] * TIMED_ROWS)
            batch = {name: value.to(model.device) for name, value in batch.items()}
            steps[variant.name] = training_step(model, batch)
            trained[variant.name] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        training = training_step_costs(steps, baseline, repeats=repeats)
        training["trained_parameters"] = [trained[name] for name in training["placement"]]
        return table.merge(training, on="placement", how="left")

    content = " ".join(f"{each.name} {base_fingerprint(each.folder)}" for each in first)
    return results.over(
        [first],
        measure,
        table="costs",
        key=lambda _: "side by side",
        item="timing",
        keys=["placement"],
        content=lambda _: content,
    ).read()


def open_variant(variant: Variant) -> ModelAnswerer:
    """The variant's model, on its route."""
    answerer = open_answerer(variant.folder)
    if variant.route is not None:
        answerer.model.route = variant.route
    return answerer


def scale_of(
    experiment: Experiment,
    name: str,
    seeds: Sequence[int] | None = None,
    systems: Sequence[str] | None = None,
) -> ExperimentScale:
    """An experiment at a scale, or a part of it.

    Args:
        experiment: which.
        name: of the scale.
        seeds: instead of the scale's.
        systems: these alone, and the baseline; all by default.

    Raises:
        RecipeError: there is no such scale or system.
    """
    if name not in experiment.scales:
        raise RecipeError(f"no scale {name!r}; there are {', '.join(experiment.scales)}.")
    scale = experiment.scales[name]
    if unknown := sorted(set(systems or ()) - set(scale.systems)):
        raise RecipeError(f"no system {', '.join(unknown)}; there are {', '.join(scale.systems)}.")
    chosen = {
        each: plan
        for each, plan in scale.systems.items()
        if systems is None or each in systems or each == scale.baseline
    }
    return scale.model_copy(update={"systems": chosen, "seeds": tuple(seeds or scale.seeds)})


def check_answerable(scale: ExperimentScale, files: Mapping[str, BenchmarkFiles]) -> None:
    """Raise `RecipeError` where a benchmark of the scale has no question file, before training."""
    for name in scale.benchmarks:
        find_benchmark(name)
    if lacking := [name for name in scale.benchmarks if name not in files]:
        raise RecipeError(
            f"no questions given for {', '.join(lacking)}; name each one's file and, where it lies "
            "elsewhere, the folder of its sound: --benchmark NAME=QUESTIONS:AUDIO."
        )


def summary(marks: pd.DataFrame, costs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each system's score on every set of questions, and what it is beside the baseline's.

    Args:
        marks: from `ask_labelled` or `ask_benchmarks`.
        costs: from `costs_of`.
        baseline: the system to compare with, on its own route.

    Returns:
        One row a (variant, set), and set "all": `variant, system, under, set, seeds, n` (clips),
        `score` (over all seeds) with its 95 % interval over clips `low, high`, each clip with all
        its seeds: it is about these trainings, and says nothing of another seed; `seed_values`,
        the score of each seed, which are too few for an interval; and `difference` from the
        baseline with its paired interval `difference_low, difference_high` (the same clips and
        seeds). What an interval is not known of is NaN, and `values` and `difference_values` have
        each clip's. Then the costs.

    Raises:
        ValueError: a variant shares no clip and seed with the baseline.
    """
    everything: Any = marks
    everything = pd.concat([everything, everything.assign(set=ALL)], ignore_index=True)
    if everything["set"].nunique() == 2:
        everything = marks
    base: Any = everything[everything["variant"] == baseline]
    rows: list[dict[str, Any]] = []
    named = ["variant", "system", "under", "set"]
    for names, group in everything.groupby(named, sort=False, observed=True):
        seeds = group.groupby("seed")[["got", "of"]].sum()
        scores = seeds["got"] / seeds["of"]
        row = dict(zip(named, names, strict=True))
        found = score_of(group)
        row |= {
            "seeds": len(seeds),
            "n": group["clip"].nunique(),
            "score": found.score,
            **interval_columns(found.interval, found.by_clip),
            "seed_values": Values(tuple(scores.tolist())),
        }
        rows.append(row | _difference(base[base["set"] == row["set"]], group))
    table: Any = pd.DataFrame(rows)
    return table.merge(costs.drop(columns="timing"), left_on="variant", right_on="placement").drop(
        columns="placement"
    )


def _difference(base: Any, group: Any) -> dict[str, Any]:
    same = ["seed", "clip"]
    sums = [each.groupby(same)[["got", "of"]].sum().reset_index() for each in (base, group)]
    both: Any = sums[0].merge(sums[1], on=same, suffixes=("_a", "_b"))
    if not len(both):
        raise ValueError("a system and the baseline have no clip and seed in common.")
    found = difference_of_scores(both)
    a, b = (both[f"got_{side}"].sum() / both[f"of_{side}"].sum() for side in "ab")
    columns = interval_columns(found.interval, found.by_clip, "difference")
    return {"difference": b - a} | columns


def _marks(variant: Variant, of_set: Any, clip: Any, got: Any, of: Any) -> pd.DataFrame:
    table = pd.DataFrame({"clip": list(clip)})
    named = {
        "variant": variant.name,
        "system": variant.system.name,
        "under": variant.under,
        "route": variant.system.recipe.route
        if variant.route is None
        else route_to_text(variant.route),
        "seed": variant.seed,
        "set": of_set if isinstance(of_set, str) else list(of_set),
    }
    for name, value in named.items():
        table[name] = value
    table["got"] = np.asarray(got, float)
    table["of"] = of if isinstance(of, float) else np.asarray(of, float)
    return table.reindex(columns=[*named, "clip", "got", "of"])


def _stored(results: Run, variants: Sequence[Variant], measure: Any, content: str) -> pd.DataFrame:
    return results.over(
        variants,
        measure,
        table="marks",
        key=_key,
        item="trained",
        keys=["set", "clip"],
        content=lambda variant: f"{base_fingerprint(variant.folder)} {variant.route} {content}",
    ).read()


def _key(variant: Variant) -> str:
    return f"{variant.name} seed {variant.seed}"

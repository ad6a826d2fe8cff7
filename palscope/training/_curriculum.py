"""A recipe's stages, one after the other, each from the checkpoint of the one before."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from accelerate.utils import set_seed
from torch.utils.data import Dataset, IterableDataset

from palscope._models.base_weights import base_config
from palscope._published.loading import find_model, open_checkpoint
from palscope._sweeps import processes
from palscope._sweeps.record import file_hash
from palscope.datasets._examples import MIX, DemoExamples, Example, validation_examples
from palscope.datasets._manifest import Corpus, ManifestError
from palscope.errors import DataError, RecipeError
from palscope.training._folders import is_trained, mark_trained
from palscope.training._mixture import QuestionRows, pools, row_example
from palscope.training._recipe import Recipe, Stage
from palscope.training._rows import read_rows
from palscope.training._streams import StreamedQuestions, open_stream
from palscope.training._trained import prepare
from palscope.training._trainer import build, measure_features, train, training_arguments

SKIPPED = "skipped_rows.csv"

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class TrainingPaths:
    """Where a training reads and writes.

    Attributes:
        data: the data of all stages, or that of each: files, or hub ids for format `datasets`.
        out: gets a folder a stage, `1-connector` and so on.
        cache: decoded sound.
        audio: folder of the sound files, where it is not the data's own.
        workers: processes that decode, and that make batches for each training process.
    """

    data: Sequence[str]
    out: Path
    cache: Path
    audio: Path | None = None
    workers: int = 1


def stage_folders(recipe: Recipe, out: Path) -> list[Path]:
    """The folder of each stage."""
    return [out / f"{number}-{name}" for number, name in enumerate(recipe.stages, 1)]


def train_recipe(
    recipe: Recipe, paths: TrainingPaths, *, only: int | None = None, seed: int = 0
) -> list[Path]:
    """Train the stages that are not trained yet, or one of them.

    A stage that was killed goes on from its last checkpoint.

    Args:
        recipe: the stages, and what they share.
        paths: where to read and write.
        only: number of a stage, from 1; the one before must be trained.
        seed: of initial weights, order and examples.

    Returns:
        The checkpoint of each stage that was asked for.

    Raises:
        RecipeError: the recipe does not fit the bases or the number of processes.
        DataError, ManifestError: the data cannot be used.
        PalscopeError: a folder holds another training, or the loss is no number.
    """
    count = len(recipe.stages)
    if only is not None and not 1 <= only <= count:
        raise RecipeError(f"there is no stage {only}; the recipe has 1 to {count}.")
    if len(paths.data) not in (1, count):
        raise DataError(
            f"{len(paths.data)} sources of data for {count} stages; give one for all, or one each."
        )
    folders = stage_folders(recipe, paths.out)
    wanted = range(count) if only is None else [only - 1]
    for index in wanted:
        name = list(recipe.stages)[index]
        before = folders[index - 1] if index else None
        if before is not None and not (before / "trained.json").is_file():
            raise RecipeError(
                f"stage {index + 1} starts from stage {index}, which is not trained in {before}."
            )
        source = paths.data[index if len(paths.data) > 1 else 0]
        record = {
            **recipe.model_dump(mode="json", exclude={"stages", "samples"}),
            "stage": recipe.stages[name].model_dump(mode="json"),
            "data_sha256": file_hash(Path(source)) if Path(source).is_file() else source,
            "seed": seed,
        }
        if not is_trained(folders[index], record, "recipe, data or seed"):
            _train_stage(recipe, index, source, paths, before, folders[index], seed)
    return [folders[index] for index in wanted]


def _train_stage(
    recipe: Recipe,
    index: int,
    source: str,
    paths: TrainingPaths,
    before: Path | None,
    folder: Path,
    seed: int,
) -> None:
    stage = list(recipe.stages.values())[index]
    set_seed(seed)
    if before is None:
        text = base_config(recipe.bases.text)
        model, processor = build(
            recipe.bases,
            recipe.route_for(text.num_hidden_layers),
            recipe.connector,
            recipe.prompt,
        )
    else:
        model, processor = cast(Any, open_checkpoint)(find_model(before), dtype=torch.float32)
    # Each stage hears other examples than the one before.
    made = _examples(recipe, stage, source, paths, folder, seed + index)
    if before is None:
        count = recipe.standardise_over
        if torch.cuda.is_available():
            model.encoder.to(processes.device() or "cuda")
        model.connector.standardise(*measure_features(model, processor, made.examples, count))
    prepare(model, stage.train, bf16=stage.bf16)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if processes.rank() == 0:
        print(
            f"{folder.name}: {trained / 1e6:.2f} M parameters to train, {made.steps} steps of "
            f"{stage.batch}\n{model.route}",
            flush=True,
        )
    torch.manual_seed(seed)
    streamed = isinstance(made.examples, IterableDataset)
    arguments = training_arguments(
        stage,
        folder,
        steps=made.steps,
        seed=seed,
        # Each worker would read the whole of a stream.
        dataloader_num_workers=min(paths.workers, 1) if streamed else paths.workers,
    )
    train(
        model,
        processor,
        made.examples,
        stage,
        arguments,
        heldout=made.heldout,
        samples=recipe.samples,
    )
    mark_trained(folder, {"steps": made.steps, "trained_parameters": trained})
    if processes.rank() == 0:  # with the optimiser's state, several times the model's size
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)


@dataclass(frozen=True)
class _Made:
    """A stage's examples, its steps, and what is asked while training."""

    examples: Dataset[Example]
    steps: int
    heldout: list[Example]


def _examples(
    recipe: Recipe, stage: Stage, source: str, paths: TrainingPaths, folder: Path, seed: int
) -> _Made:
    if recipe.data.format == "labelled":
        return _labelled(recipe, stage, source, paths, seed)
    if recipe.data.format == "datasets":
        return _streamed(recipe, stage, source, folder, seed)
    return _rows(recipe, stage, source, paths, folder, seed)


def _labelled(recipe: Recipe, stage: Stage, source: str, paths: TrainingPaths, seed: int) -> _Made:
    assert stage.steps is not None
    mix = stage.mix or MIX
    if unknown := sorted(mix.keys() - MIX.keys()):
        raise RecipeError(
            f"mix: no family of examples called {', '.join(unknown)}; there are {', '.join(MIX)}."
        )
    corpus = first_alone(lambda: Corpus.open(source, paths.cache))
    size = stage.steps * stage.batch
    asked: list[Example] = []
    for kind in list(mix)[: recipe.samples.count] if recipe.samples.every else []:
        try:
            asked += validation_examples(corpus, kind, n=1)
        except ManifestError as error:
            _log.warning("no sample of %s while training: %s", kind, error)
    return _Made(DemoExamples(corpus, size=size, seed=seed, mix=mix), stage.steps, asked)


def _streamed(recipe: Recipe, stage: Stage, source: str, folder: Path, seed: int) -> _Made:
    assert stage.steps is not None
    rows = open_stream(source, recipe.data)
    asked: list[Example] = []
    if recipe.samples.every:
        # The first rows, which then stay out of training.
        first = StreamedQuestions(
            rows.take(recipe.samples.count), recipe.data, size=recipe.samples.count, mix={}
        )
        asked = list(first)
        rows = rows.skip(recipe.samples.count)
    examples = StreamedQuestions(
        rows,
        recipe.data,
        size=stage.steps * stage.batch,
        mix=stage.mix,
        seed=seed,
        report=folder / SKIPPED if processes.rank() == 0 else None,
    )
    return _Made(examples, stage.steps, asked)


def _rows(
    recipe: Recipe, stage: Stage, source: str, paths: TrainingPaths, folder: Path, seed: int
) -> _Made:
    rows = read_rows(recipe.data, Path(source), paths.audio)
    waveforms = first_alone(lambda: rows.decoded(recipe.data, paths.cache, workers=paths.workers))
    if processes.rank() == 0:
        rows.report(folder / SKIPPED, recipe.data.max_bad)
    processes.wait()
    count = recipe.samples.count if recipe.samples.every else 0
    # The same in all stages: what one holds out, another must not train on.
    chosen, held = rows.split_off(recipe.data, count, seed=0)
    steps = stage.steps
    if steps is None:
        assert stage.epochs is not None
        fit = sum(map(len, pools(chosen, stage.mix).values()))
        steps = max(1, int(stage.epochs * fit / stage.batch))
    examples = QuestionRows(chosen, waveforms, size=steps * stage.batch, mix=stage.mix, seed=seed)
    entries: list[Any] = cast(Any, held).to_dict("records")
    asked = [row_example(row, np.array(waveforms[str(row["audio"])])) for row in entries]
    return _Made(examples, steps, asked)


def first_alone(work: Callable[[], T]) -> T:
    """`work`, done by the first process before the others, who find what it left in the cache."""
    if processes.rank() == 0:
        done = work()
        processes.wait()
        return done
    processes.wait()
    return work()

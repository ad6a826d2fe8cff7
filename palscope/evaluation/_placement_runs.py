"""Runs over placements of audio: one checkpoint rerouted, or a connector trained for each."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from palscope._models.audio_model import AudioLanguageModel
from palscope._models.base_weights import base_fingerprint
from palscope._routing import Route
from palscope._routing.depths import NO_AUDIO, Placement
from palscope._sweeps import commands
from palscope._sweeps.commands import count
from palscope._sweeps.record import command_record, file_hash
from palscope._sweeps.store import Run
from palscope.audio._bundled import CLIPS_FOLDER
from palscope.datasets._manifest import Clip, Corpus, ManifestError, read_manifest
from palscope.errors import RouteError
from palscope.evaluation._placements import Questions, measure_placements
from palscope.evaluation._ranking import ModelAnswerer, open_answerer
from palscope.plots import Caption
from palscope.training._placements import Schedule, train_placements

BUNDLED = CLIPS_FOLDER / "clips.csv"
TRAINED = "trained"

_OF_REROUTING = ("model", "route", "manifest", "split")
_OF_TRAINING = ("train", "steps", "batch", "bf16", "checkpoints", "cache")
_OF_NEITHER = ("threads",)


def add_arguments(parser: ArgumentParser) -> None:
    """What to ask, how to time, and what to train."""
    asked = parser.add_argument_group("questions and timing")
    asked.add_argument(
        "--manifest", type=Path, default=BUNDLED, help="clips to ask about (default: the bundled)"
    )
    asked.add_argument("--split", help="only rows with this value in the manifest's column split")
    asked.add_argument("--limit", type=count, help="so many clips of each domain")
    asked.add_argument("--seconds", type=float, default=10.0, help="of sound in the timed prompt")
    asked.add_argument("--repeats", type=count, default=5, help="of each timing")
    asked.add_argument("--threads", type=count, help="CPU threads (default: all)")
    trained = parser.add_argument_group("training")
    trained.add_argument(
        "--train",
        type=Path,
        metavar="MANIFEST",
        help="also train a connector for each placement on this manifest's split train, and score "
        "them on its split validation; goes on where it was stopped",
    )
    trained.add_argument(
        "--steps",
        type=count,
        default=150,
        help="of each training; few steps compare how fast placements learn, not what they reach",
    )
    trained.add_argument("--batch", type=count, default=12, help="clips a step")
    trained.add_argument("--bf16", action="store_true", help="bfloat16 bases and products")
    trained.add_argument(
        "--checkpoints", type=Path, help="folder of the trainings (default: OUT/checkpoints)"
    )
    trained.add_argument("--cache", type=Path, default=Path("runs/cache"), help="decoded clips")


def caption(table: Any) -> Caption:
    """What the figures say of a table of placements."""
    models = ", ".join(map(str, table["model"].unique()))
    clips = int(table.groupby("domain")["n"].max().sum())
    return Caption(models, "the own question of each domain", clips)


def rerouted(given: Namespace, find: Callable[[Route], list[Placement]]) -> pd.DataFrame:
    """Measure the placements that `find` makes of each model's own route, each in its own run.

    What a checkpoint has no weights for is left out, and said.

    Returns:
        As `measure_placements`, with `model`; costs are relative to the model's own route.
    """
    if given.threads:
        torch.set_num_threads(given.threads)
    questions = Questions.about(_rows(given.manifest, given.split), given.limit)
    tables: list[pd.DataFrame] = []
    for name in dict.fromkeys(given.model):
        one = _only(given, _OF_TRAINING, model=name, out=given.out / Path(name).name)
        hooked = commands.open_model(one)
        placements = _served(name, hooked.model, find(hooked.current_route))
        own = [each for each in placements if each.route == hooked.current_route]
        if not own:
            continue
        # Timed and asked as users run it: without hooks.
        answerer = open_answerer(name, hooked.model.device)
        results = commands.open_run(one, hooked, data=[given.manifest])
        table = measure_placements(
            results,
            placements,
            lambda _, answerer=answerer: answerer,
            questions,
            baseline=own[0].name,
            seconds=given.seconds,
            repeats=given.repeats,
        )
        if results.main:
            results.finish()
        tables.append(table.assign(model=Path(name).name))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def trained(given: Namespace, placements: Sequence[Placement], baseline: str) -> pd.DataFrame:
    """Train a connector for each placement, and measure each on its own weights.

    Returns:
        As `measure_placements`, with `model` and `steps`; costs are relative to `baseline`.
    """
    if given.threads:
        torch.set_num_threads(given.threads)
    folders = train_placements(
        placements,
        Corpus.open(given.train, given.cache),
        given.checkpoints or given.out / "checkpoints",
        Schedule(given.steps, given.batch, seed=given.seed, bf16=given.bf16),
        manifest=given.train,
    )
    one = _only(given, _OF_REROUTING, out=given.out / TRAINED)
    record = command_record(commands.settings(one)) | {
        "weights": {name: base_fingerprint(folder) for name, folder in folders.items()},
        "seed": given.seed,
        "data": {str(given.train): file_hash(given.train)},
    }
    results = Run.open(one.out, record, resume=given.resume)
    table = measure_placements(
        results,
        placements,
        Trained(folders),
        Questions.about(_rows(given.train, "validation"), given.limit),
        baseline=baseline,
        seconds=given.seconds,
        repeats=given.repeats,
    )
    if results.main:
        results.finish()
    return table.assign(model=f"{TRAINED} for {given.steps} steps", steps=given.steps)


class Trained:
    """The trained model of each placement. All share the frozen bases of the first."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        self._loaded: dict[str, ModelAnswerer] = {}

    def __call__(self, placement: Placement) -> ModelAnswerer:
        """The model of that name, loaded once."""
        if placement.name not in self._loaded:
            answerer = open_answerer(self._folders[placement.name])
            for first in list(self._loaded.values())[:1]:
                answerer.model.language_model = first.model.language_model
                answerer.model.encoder = first.model.encoder
            self._loaded[placement.name] = answerer
        return self._loaded[placement.name]


def _served(
    name: str, model: AudioLanguageModel, placements: Sequence[Placement]
) -> list[Placement]:
    """Those that the checkpoint has weights for; says why the others are left out."""
    served: list[Placement] = []
    reasons: list[str] = []
    for placement in placements:
        try:
            model.check_route(placement.route)
            served.append(placement)
        except RouteError as error:
            reasons.append(str(error))
    for reason in dict.fromkeys(reasons):
        print(f"{name} cannot be rerouted so: {reason}")
    return [] if all(each.name == NO_AUDIO for each in served) else served


def _rows(manifest: Path, split: str | None) -> list[Clip]:
    rows = [clip for clip in read_manifest(manifest) if split in (None, clip.split)]
    if not rows:
        raise ManifestError(f"manifest {manifest}: no row has split {split!r}.")
    return rows


def _only(given: Namespace, without: Sequence[str], **changes: Any) -> Namespace:
    """The arguments that decide this run, so that the others do not stand in its record."""
    left = {n: v for n, v in vars(given).items() if n not in (*without, *_OF_NEITHER)}
    return Namespace(**left | changes)

"""Train a model by a recipe: its stages one after the other, or one of them.

    python analyses/train.py demo/stages+pal --data MANIFEST.csv --out runs/my-pal
    accelerate launch --num_processes 8 analyses/train.py paper/stages+llama-3.2-1b+pal \
        --data combine_cla.json openaqa_5.6M.json --folder AUDIO --out runs/pal-1b

A recipe is a YAML file, or pieces that come with palscope joined by +; docs/training.md says which
there are and where their data comes from. A killed run goes on from its last checkpoint with the
same command.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from palscope._sweeps import processes
from palscope.analyses import Command, option
from palscope.training._curriculum import TrainingPaths, train_recipe
from palscope.training._recipe_files import read_recipe


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What is trained, on what."""

    recipe: str = option(
        ..., "YAML file or pieces joined by +, e.g. demo/stages+pal", positional=True
    )
    data: tuple[str, ...] = option(
        ..., "data of all stages, or one for each: CSV, OpenAQA's JSON, or a dataset's hub id"
    )
    folder: Path | None = option(None, "of the data's sound files (default: beside the data)")
    out: Path = option(..., "gets a folder a stage")
    stage: int | None = option(None, "train this one only, from 1", least=1)
    cache: Path = option(Path("runs/cache"), "decoded sound")
    seed: int = option(0, "of all random numbers")
    workers: int = option(1, "processes that load data, of each training process", least=0)
    threads: int | None = option(None, "of the CPU (default: all)", least=1)


def trained(given: TrainOptions) -> None:
    """Train the recipe's stages."""
    logging.basicConfig(level=logging.INFO if processes.rank() == 0 else logging.ERROR)
    if given.threads:
        torch.set_num_threads(given.threads)
    paths = TrainingPaths(given.data, given.out, given.cache, given.folder, given.workers)
    folders = train_recipe(read_recipe(given.recipe), paths, only=given.stage, seed=given.seed)
    if processes.rank() == 0:
        print(f"trained: {folders[-1]}")


COMMAND = Command("train", TrainOptions, trained)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(__doc__))

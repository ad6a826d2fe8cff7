"""Train a model by a recipe: its stages one after the other, or one of them.

    python analyses/train.py demo/stages+pal --data MANIFEST.csv --out runs/my-pal
    accelerate launch --num_processes 8 analyses/train.py paper/stages+llama-3.2-1b+pal \
        --data combine_cla.json openaqa_5.6M.json --audio AUDIO --out runs/pal-1b

A recipe is a YAML file, or pieces that come with palscope joined by +; docs/training.md says which
there are and where their data comes from. A killed run goes on from its last checkpoint with the
same command.
"""

from __future__ import annotations

import argparse
import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch

from palscope._sweeps import commands, processes
from palscope._sweeps.commands import count, workers
from palscope.training._curriculum import Place, train_recipe
from palscope.training._recipe_files import read_recipe


def main() -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="YAML file or pieces joined by +, e.g. demo/stages+pal")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        help="data of all stages, or one for each: CSV, OpenAQA's JSON, or a dataset's hub id",
    )
    parser.add_argument("--audio", type=Path, help="folder of the sound files (the data's own)")
    parser.add_argument("--out", required=True, type=Path, help="gets a folder a stage")
    parser.add_argument("--stage", type=count, help="train this one only, from 1")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="decoded sound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=workers, default=1, help="data loading, a training process"
    )
    parser.add_argument("--threads", type=count, help="CPU threads (all by default)")
    return commands.call(run, parser.parse_args())


def run(given: Namespace) -> None:
    logging.basicConfig(level=logging.INFO if processes.place()[0] == 0 else logging.ERROR)
    if given.threads:
        torch.set_num_threads(given.threads)
    place = Place(given.data, given.out, given.cache, given.audio, given.workers)
    folders = train_recipe(read_recipe(given.recipe), place, only=given.stage, seed=given.seed)
    if processes.place()[0] == 0:
        print(f"trained: {folders[-1]}")


if __name__ == "__main__":
    raise SystemExit(main())

"""Training: a checkpoint from two bases, and the stages of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palscope._lazy import lazily

if TYPE_CHECKING:
    from palscope.training._dictionary import train_dictionary
    from palscope.training._recipe import Bases, Stage
    from palscope.training._trained import prepare
    from palscope.training._trainer import build, measure_features, train, training_arguments

__all__ = [
    "Bases",
    "Stage",
    "build",
    "measure_features",
    "prepare",
    "train",
    "train_dictionary",
    "training_arguments",
]

_HOMES = {
    "Bases": "palscope.training._recipe",
    "Stage": "palscope.training._recipe",
    "prepare": "palscope.training._trained",
    "build": "palscope.training._trainer",
    "measure_features": "palscope.training._trainer",
    "train": "palscope.training._trainer",
    "train_dictionary": "palscope.training._dictionary",
    "training_arguments": "palscope.training._trainer",
}

# transformers' Trainer takes seconds, and who reads a recipe needs none.
__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return list(__all__)

"""A small training, for `accelerate launch`: RECIPE DATA OUT CACHE, and the step to die in."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import Trainer

from palscope.training._curriculum import TrainingPaths, train_recipe
from palscope.training._recipe_files import read_recipe


def main() -> None:
    recipe, data, out, cache, *dies = sys.argv[1:]
    step, done = Trainer.training_step, 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        done += 1
        if dies and done == int(dies[0]):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **kwargs)

    cast_trainer: Any = Trainer
    cast_trainer.training_step = counted
    train_recipe(read_recipe(recipe), TrainingPaths([data], Path(out), Path(cache), None, 0))


if __name__ == "__main__":
    main()

"""A run into the first folder, and into others, which refuse it: for `accelerate launch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from palscope._sweeps import processes
from palscope._sweeps.store import Run
from palscope.errors import PalscopeError

ITEMS = [f"item {number}" for number in range(11)]


def work(folder: Path) -> None:
    def measure(item: str) -> pd.DataFrame:
        # Which process did it stays out of the table, which must not depend on it.
        with Path(f"{folder}-{processes.rank()}").open("a") as log:
            log.write(f"{item}\n")
        if item == "item 3":
            raise PalscopeError(f"{item} is unusable.")
        return pd.DataFrame({"layer": range(4), "effect": np.random.rand(4)})

    run = Run.open(folder, {"config": {}, "seed": 3, "process": os.getpid()}, resume=False)
    stored = run.over(ITEMS, measure, table="effects", key=str, keys=["layer"])
    assert len(stored.read()) == 4 * (len(ITEMS) - 1)  # every process sees the whole
    assert run.main == (processes.rank() == 0)
    run.finish(by=processes.rank())


def main() -> None:
    done, *refused = map(Path, sys.argv[1:])
    work(done)
    for folder in refused:
        try:
            work(folder)
        except PalscopeError as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()

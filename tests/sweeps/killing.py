"""Kills runs and resumes them: a program of its own, so that a start costs a fork and no imports.

    python killing.py random FOLDER KILLS    SIGKILL at random moments, until KILLS have hit
    python killing.py writing FOLDER         SIGKILL just before and just after each file appears

Prints a JSON object a run: how often it was killed, how often an item was measured, whether its
files are the bytes of a run that was left alone, and whether its record is finished.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from palscope._sweeps.store import Run
from palscope.errors import PalscopeError

ITEMS = [f"item {number}" for number in range(30)]
FEW = ITEMS[14:20]
UNUSABLE = "item 17"


def work(folder: Path, items: list[str]) -> None:
    """A run of a cheap measure; every call is noted in the folder's `calls`."""
    run = Run.open(folder, {"config": {"rows": 50}, "seed": 3}, resume=True)

    def measure(item: str) -> pd.DataFrame:
        with (folder / "calls").open("a") as calls:
            calls.write(f"{item}\n")
        time.sleep(0.003)
        if item == UNUSABLE:
            raise PalscopeError(f"{item} is unusable.")
        kind = pd.Categorical([item[-1]] * 50, categories=list("0123456789"))
        return pd.DataFrame({"layer": range(50), "kind": kind, "effect": np.random.rand(50)})

    run.over(items, measure, table="effects", key=str, keys=["layer"])
    run.finish()


def start(task: Callable[[], None]) -> int:
    """Fork a child that does the task."""
    child = os.fork()
    if child == 0:
        task()
        os._exit(0)
    return child


def killed(child: int) -> bool:
    """Wait for a child's end; any other end than being killed, or in order, is an error."""
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return False
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    return True


def report(folder: Path, whole: Path, kills: int) -> None:
    record = json.loads((folder / "run.json").read_text())
    same = (folder / "effects.parquet").read_bytes() == (whole / "effects.parquet").read_bytes()
    calls = (folder / "calls").read_text().split("\n")[:-1]
    left = [str(path) for path in folder.rglob("*.part")]
    about = {"kills": kills, "calls": len(calls), "items": len(set(calls)), "same": same}
    left_out = record["tables"]["effects"]["left_out"]
    print(json.dumps(about | {"finished": record["finished"], "left": left, "out": left_out}))


def at_random(folder: Path, whole: Path, wanted: int, seconds: float) -> None:
    rng = random.Random(0)
    total = 0
    for number in range(10 * wanted):
        if total >= wanted:
            break
        target, kills = folder / f"run {number}", 0
        while True:
            child = start(lambda target=target: work(target, ITEMS))
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            if not killed(child):
                break
            kills += 1
        total += kills
        report(target, whole, kills)


def while_writing(folder: Path, whole: Path) -> None:
    """Kill at the n-th file that appears, for every n until a run comes to its end."""
    replace = os.replace
    for after in (False, True):
        for number in range(1000):
            target = folder / f"{number} {after}"

            def doomed(target: Path = target, number: int = number, after: bool = after) -> None:
                seen = 0

                def last(source: Path, destination: Path) -> None:
                    nonlocal seen
                    seen += 1
                    if after:
                        replace(source, destination)
                    if seen > number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    if not after:
                        replace(source, destination)

                os.replace = last
                work(target, FEW)

            if not killed(start(doomed)):
                break
            assert not killed(start(lambda target=target: work(target, FEW)))
            report(target, whole, 1)


def main() -> None:
    folder = Path(sys.argv[2])
    whole = folder / "whole"
    items = ITEMS if sys.argv[1] == "random" else FEW
    began = time.monotonic()
    assert not killed(start(lambda: work(whole, items)))
    seconds = time.monotonic() - began
    if sys.argv[1] == "random":
        at_random(folder, whole, int(sys.argv[3]), seconds)
    else:
        while_writing(folder, whole)


if __name__ == "__main__":
    main()

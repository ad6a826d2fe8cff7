"""Runs that several processes share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from palscope._sweeps import processes, store
from tests.sweeps import together

ROOT = Path(__file__).parents[2]
# On a machine without a GPU too, --multi_gpu is what starts several processes (--cpu: only by MPI).
LAUNCH = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
OPTIONS = "--mixed_precision no --dynamo_backend no --main_process_port 0"
TWO = ["-m", *LAUNCH.split(), *OPTIONS.split()]


def test_a_process_alone_is_the_only_one() -> None:
    assert not processes.distributed()
    assert (processes.rank(), processes.world_size()) == (0, 1)
    assert processes.device() is None
    processes.wait()


@pytest.mark.slow
def test_two_processes_give_the_table_of_one(tmp_path: Path) -> None:
    """Both hear of a folder that holds a run, or is written to: neither waits for the other."""
    one, two, held = (tmp_path / name for name in ("one", "two", "held"))
    together.work(one)
    lock = store.hold(held)  # a third process
    program = [sys.executable, *TWO, "-m", "tests.sweeps.together", two, two, held]
    done = subprocess.run([*map(str, program)], cwd=ROOT, capture_output=True, text=True)
    lock.release()
    assert done.returncode == 0, done.stderr
    shares = [(tmp_path / f"two-{number}").read_text().splitlines() for number in (0, 1)]
    assert shares == [together.ITEMS[::2], together.ITEMS[1::2]]
    tables = [(folder / "effects.parquet").read_bytes() for folder in (one, two)]
    assert tables[0] == tables[1]
    record = json.loads((two / "run.json").read_text())
    assert record["finished"] and record["by"] == 0
    assert record["tables"]["effects"]["left_out"] == [
        {"pair": "item 3", "error": "item 3 is unusable."}
    ]
    assert done.stderr.count("holds a run already") == 2
    assert done.stderr.count("another process is writing to") == 2

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
    def run(*command: str, folder: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, *command, "-m", "tests.sweeps.together", str(tmp_path / folder)]
        return subprocess.run(program, cwd=ROOT, capture_output=True, text=True)

    assert run(folder="one").returncode == 0
    two = run(*TWO, folder="two")
    assert two.returncode == 0, two.stderr
    shares = [(tmp_path / f"two-{number}").read_text().splitlines() for number in (0, 1)]
    assert shares == [together.ITEMS[::2], together.ITEMS[1::2]]
    one, other = (tmp_path / name / "effects.parquet" for name in ("one", "two"))
    assert one.read_bytes() == other.read_bytes()
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["finished"] and record["by"] == 0
    assert record["tables"]["effects"]["left_out"] == [
        {"pair": "item 3", "error": "item 3 is unusable."}
    ]
    again = run(*TWO, folder="two")  # without --resume: both see it, neither waits for the other
    assert again.returncode != 0 and "holds a run already" in again.stderr
    lock = store.hold(tmp_path / "two")  # a third process: both hear of it
    third = run(*TWO, folder="two")
    lock.release()
    assert third.returncode != 0 and third.stderr.count("another process is writing to") >= 2

"""A run that is killed, at whatever moment, goes on to the table of a run that was left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps import killing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and SIGKILL")


def killed_runs(items: list[str], *arguments: object) -> list[dict[str, Any]]:
    """What `killing.py` reports, with what holds for each of its runs checked."""
    command = [sys.executable, "-m", "tests.sweeps.killing", *map(str, arguments)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    for run in runs:
        assert run["same"] and run["finished"] and run["left"] == []
        assert [each["pair"] for each in run["out"]] == [killing.UNUSABLE]
        assert run["items"] == len(items)
        # A kill costs the item that was being measured; the unusable one is tried each time.
        assert run["calls"] <= len(items) + 2 * run["kills"] + 1
    return runs


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    runs = killed_runs(killing.ITEMS, "random", tmp_path, 30)
    assert sum(run["kills"] for run in runs) >= 30


@pytest.mark.slow
def test_killed_before_and_after_every_file_appears(tmp_path: Path) -> None:
    # run.json, the shards, the unusable item's note, the table, run.json with it, and finished
    assert len(killed_runs(killing.FEW, "writing", tmp_path)) == 2 * (1 + len(killing.FEW) + 3)

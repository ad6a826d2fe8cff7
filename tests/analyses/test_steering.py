"""The command that steers: free answers, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palscope.analyses import analysis_of
from palscope.analyses._options import options_of
from palscope.directions import Direction

FOLDER = Path(__file__).parent / "direction"


def test_free_answers_are_written_down(analyse: Callable[..., Path], manifest: Path) -> None:
    own = pd.read_csv(manifest)["path"][0]
    out = analyse(
        *("steering", "--direction", FOLDER, "--at", "resid_post:1", "--audio", manifest),
        *("--only", own, "--doses", 0, 9, "--tokens", "text", "--say"),
    )
    said = pd.read_parquet(out / "said.parquet")
    assert said["dose"].tolist() == [0, 9, 0, 9] and set(said["by"]) == {"direction", "random"}
    assert said["text"][0] == said["text"][2] != said["text"][1]
    doses = pd.read_csv(out / "doses.csv")
    assert (doses["norm"] == doses["dose"] * Direction.load(FOLDER).relative_norm).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--at", "resid_post:1", "--tokens", "last", "--start", 1),
            "--start and --end are of sound",
        ),
        (
            ("--at", "resid_post:2"),
            "this direction is of blocks.1.hook_resid_post, not of blocks.2",
        ),
        (("--at", "resid_post"), "this direction is of blocks.1.hook_resid_post, not of blocks.0"),
    ],
)
def test_what_does_not_fit_is_told(refused: Callable[..., str], words: Any, says: str) -> None:
    assert says in refused("steering", "--direction", FOLDER, "--n", 1, *words)


def test_a_direction_that_leads_to_no_label_is_told(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    own = Direction.load(FOLDER)
    Direction(own.vector, own.hook_point).save(tmp_path / "bare")
    said = refused("steering", "--direction", tmp_path / "bare", "--at", "resid_post:1")
    assert "it leads to no label" in said


def test_an_item_knows_what_is_added(tmp_path: Path) -> None:
    """Another direction in the same folder is another run."""
    analysis: Any = analysis_of("steering")
    own = Direction.load(FOLDER)
    digests: set[str] = set()
    for name, vector in (("one", own.vector), ("two", own.vector * 2)):
        Direction(vector, own.hook_point, own.made).save(tmp_path / name)
        given = {"model": "x", "direction": tmp_path / name, "at": "resid_post:1", "n": 1}
        digests |= {analysis.items(options_of(analysis.options, given))[0].digest}
    assert len(digests) == 2

"""A training that two processes share, against one process: DDP, FSDP, and a kill for good."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palscope.errors import PalscopeError
from palscope.training._curriculum import TrainingPaths, train_recipe
from palscope.training._recipe_files import read_recipe
from tests.training import small
from tests.training.forked import RESUMED, SHARED

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


class Trial:
    """A recipe, its data, and what one process makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        self.data = small.write_questions(folder / "data")
        with self.data.open("a") as file:
            file.write("gone.wav,which tone is this,low,edge,pitch,train\n")
        content = small.recipe(
            small.write_bases(folder),
            data={"format": "csv", "max_bad": 0.1},
            batch=8,
            per_device=2,
            learning_rate=1e-3,
            gradient_checkpointing=True,
            samples={"every": 2, "count": 2, "max_new_tokens": 2},
            stages={"first": {"train": {"llm": "frozen_ffn"}, "steps": 4}},
        )
        self.recipe = small.write_recipe(folder / "recipe.yaml", content)
        paths = TrainingPaths([str(self.data)], folder / "one", folder / "cache", workers=0)
        train_recipe(read_recipe(str(self.recipe)), paths)

    @functools.cached_property
    def two(self) -> Any:
        """Two processes that train into `ddp`, die in a step and go on; two that do into `fsdp`."""
        ddp, fsdp = (
            [self.folder / name, self.folder / f"cache-{name}"] for name in ("ddp", "fsdp")
        )
        # In the third step's second micro-batch.
        words = map(str, [self.recipe, self.data, *ddp, 6, *fsdp])
        program = [sys.executable, "-m", "tests.training.forked", *words]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    def assert_as_one(self, out: str) -> None:
        """Losses, norms of gradients, weights and sample answers are those of one process."""
        one, two = (self.folder / name / "1-first" for name in ("one", out))
        for a, b in zip(losses(one), losses(two), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
        weights, others = (load_file(each / "model.safetensors") for each in (one, two))
        assert weights.keys() == others.keys()
        for name, value in weights.items():
            torch.testing.assert_close(others[name], value, atol=1e-5, rtol=1e-4)
        samples = [(each / "samples.jsonl").read_text() for each in (one, two)]
        assert samples[0] == samples[1] and len(samples[0].splitlines()) == 4


def losses(folder: Path) -> list[dict[str, Any]]:
    state = json.loads((folder / "trainer_state.json").read_text())
    return [each for each in state["log_history"] if "loss" in each]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(tmp_path_factory.mktemp("trial"))


def test_two_processes_train_as_one_and_go_on_after_a_kill(trial: Trial) -> None:
    assert trial.two.stdout.split()[-6:-2] == ["-9", "-9", "0", "0"], trial.two.stderr
    trial.assert_as_one("ddp")
    # What is written is written once, whoever does it.
    resumed = trial.two.stderr.split(RESUMED)[1].split(SHARED)[0]
    assert resumed.count("1 of 25 rows left out") == 1
    assert len(list((trial.folder / "cache-ddp").iterdir())) == 1


def test_two_processes_that_share_the_weights_train_as_one(trial: Trial) -> None:
    assert trial.two.stdout.split()[-2:] == ["0", "0"], trial.two.stderr
    trial.assert_as_one("fsdp")


def test_weights_that_would_not_be_shared_are_an_error(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    paths = TrainingPaths(
        [str(trial.data)], trial.folder / "not", trial.folder / "cache", workers=0
    )
    with pytest.raises(PalscopeError, match="FSDP was asked for"):
        train_recipe(read_recipe(str(trial.recipe)), paths)

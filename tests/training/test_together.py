"""A training that two processes share, killed for good and gone on with, against one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palscope.training.curriculum import Place, train_recipe
from palscope.training.recipe import read_recipe
from tests.training import small

ROOT = Path(__file__).parents[2]
LAUNCH = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
OPTIONS = "--mixed_precision no --dynamo_backend no --main_process_port 0"
TWO = ["-m", *LAUNCH.split(), *OPTIONS.split()]


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = small.write_questions(tmp_path / "data")
    with data.open("a") as file:
        file.write("gone.wav,which tone is this,low,edge,pitch,train\n")
    content = small.recipe(
        small.write_bases(tmp_path),
        data={"format": "csv", "max_bad": 0.1},
        batch=8,
        per_device=2,
        learning_rate=1e-3,
        samples={"every": 2, "count": 2, "max_new_tokens": 2},
        stages={"first": {"train": {"llm": "frozen_ffn"}, "steps": 4}},
    )
    recipe = small.write_recipe(tmp_path / "recipe.yaml", content)

    def two(*dies: str) -> subprocess.CompletedProcess[str]:
        places = [str(each) for each in (recipe, data, tmp_path / "two", tmp_path / "cache-two")]
        program = [sys.executable, *TWO, "-m", "tests.training.together", *places, *dies]
        return subprocess.run(program, cwd=ROOT, capture_output=True, text=True)

    def losses(out: str) -> list[dict[str, Any]]:
        state = json.loads((tmp_path / out / "1-first" / "trainer_state.json").read_text())
        return [each for each in state["log_history"] if "loss" in each]

    def weights(out: str) -> dict[str, torch.Tensor]:
        return load_file(tmp_path / out / "1-first" / "model.safetensors")

    place = Place([str(data)], tmp_path / "one", tmp_path / "cache-one", workers=0)
    train_recipe(read_recipe(str(recipe)), place)
    assert two("6").returncode != 0  # in the third step's second micro-batch
    assert not (tmp_path / "two" / "1-first" / "trained.json").exists()
    resumed = two()
    assert resumed.returncode == 0, resumed.stderr
    for a, b in zip(losses("one"), losses("two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
    for name, value in weights("one").items():
        torch.testing.assert_close(weights("two")[name], value, atol=1e-5, rtol=1e-4)
    # What is written is written once, whoever does it.
    samples = [(tmp_path / out / "1-first" / "samples.jsonl").read_text() for out in ("one", "two")]
    assert samples[0] == samples[1] and len(samples[0].splitlines()) == 4
    assert resumed.stderr.count("1 of 25 rows left out") == 1
    assert len(list((tmp_path / "cache-two").iterdir())) == 1

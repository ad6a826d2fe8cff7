"""Whether weights fit, from the files' headers: against tensors that are really there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import palscope
from palscope._models import memory
from palscope._models.finding import Checkpoint
from palscope._models.memory import check_fits, checkpoint_tensors, weights_bytes
from palscope.errors import CheckpointError

TENSORS = {
    "embed.weight": torch.zeros(10, 4, dtype=torch.bfloat16),
    "layer.weight": torch.zeros(6, 4, dtype=torch.bfloat16),
    "lm_head.weight": torch.zeros(5, 4, dtype=torch.bfloat16),  # untied
    "layer.bias": torch.zeros(6, dtype=torch.float32),
    "counts": torch.zeros(3, dtype=torch.int64),
    "talker.weight": torch.zeros(100, 100),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in two files."""
    names = list(TENSORS)
    for number, part in enumerate((names[:2], names[2:])):
        save_file({name: TENSORS[name] for name in part}, tmp_path / f"model-{number}.safetensors")
    return tmp_path


def here(folder: Path) -> Checkpoint:
    return Checkpoint("it", folder)


def test_bytes_are_those_of_the_tensors(folder: Path) -> None:
    found = checkpoint_tensors(here(folder))
    assert weights_bytes(found) == sum(t.numel() * t.element_size() for t in TENSORS.values())
    save_file(TENSORS, folder / "consolidated.safetensors")  # the same weights once more
    assert checkpoint_tensors(here(folder)) == found
    kept = checkpoint_tensors(here(folder), ["talker."])
    assert {each.name for each in kept} == TENSORS.keys() - {"talker.weight"}
    # Numbers that are no floats keep their type; linear maps but the head's alone are quantised.
    assert weights_bytes(kept, torch.float32) == 4 * (40 + 24 + 20 + 6) + 8 * 3
    assert weights_bytes(kept, torch.bfloat16, bits=4) == 2 * (40 + 20) + 24 // 2 + 2 * 6 + 8 * 3


def free(monkeypatch: pytest.MonkeyPatch, **room: int) -> None:
    """Let so much memory be free."""
    places: dict[Any, int] = {int(k[3:]) if k.startswith("gpu") else k: n for k, n in room.items()}
    monkeypatch.setattr(memory, "get_max_memory", lambda: places)


def test_what_does_not_fit_is_refused_by_name_and_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = weights_bytes(checkpoint_tensors(here(folder)))
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    free(monkeypatch, cpu=needed - 1, gpu0=needed)
    with pytest.raises(CheckpointError, match="this machine has"):
        check_fits(here(folder), dtype=None, device=cpu)
    check_fits(here(folder), dtype=None, device=gpu)
    check_fits(here(folder), dtype=None, device=cpu, device_map="auto")
    check_fits(here(folder), dtype=torch.bfloat16, device=cpu)
    check_fits(here(folder), dtype=None, device=cpu, device_map="auto", offload_folder="anywhere")
    free(monkeypatch, cpu=needed, gpu0=needed - 1)
    check_fits(here(folder), dtype=None, device=cpu)
    with pytest.raises(CheckpointError, match=r"0\.01 GB|0\.0 GB"):
        check_fits(here(folder), dtype=None, device=gpu)


def test_load_asks_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, cpu=1000)
    with pytest.raises(CheckpointError, match=r"demo/lal has .* weights"):
        palscope.load("demo/lal", device="cpu")

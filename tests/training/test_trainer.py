"""Checkpoints while training: the last whole one counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from palscope._files import writing
from palscope.errors import PalscopeError
from palscope.training import _trainer as trainer


@pytest.mark.parametrize("torn", [None, "", '{"global_step": 4', "folder"])
def test_a_torn_checkpoint_is_not_the_last_one(tmp_path: Path, torn: str | None) -> None:
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    broken = tmp_path / "checkpoint-12"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"half")
    if torn == "folder":
        (broken / "trainer_state.json").mkdir()
    elif torn is not None:
        (broken / "trainer_state.json").write_text(torn)
    assert trainer.last_whole(tmp_path) == 10
    assert not broken.exists()
    assert trainer.last_whole(tmp_path / "nothing") == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 19776 vs 19668"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_libraries_make_of_a_full_disk_is_one_sentence(error: Exception) -> None:
    with pytest.raises(PalscopeError, match=r"out cannot be written: .*free some"), writing("out"):
        raise error


def test_other_errors_are_not_taken_for_a_full_disk() -> None:
    for error in (RuntimeError("CUDA out of memory"), TimeoutError("late"), KeyError("x")):
        with pytest.raises(type(error)), writing("out"):
            raise error

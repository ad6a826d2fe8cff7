"""The whole list, on tiny models of all published classes, in the arithmetic that people run."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from palscope._models.families import raw
from palscope._verify import Result, Sides, verify
from palscope._verify.results import judged
from tests.published.contract import CASES
from tests.published.test_encoder_decoders import CASES as ENCODER_DECODERS
from tests.verify.conftest import CLIP, sides_of_tiny

JUDGED = (
    *("prompt", "weights", "logits", "answer", "click", "hooks"),
    *("edits", "masses", "knockout", "batch", "cache"),
)


@pytest.mark.parametrize("name", [case.name for case in (*CASES, *ENCODER_DECODERS)])
def test_every_published_class_passes(name: str) -> None:
    told: list[Result] = []
    report = verify(sides_of_tiny(name), CLIP, told.append)
    verdicts = {result.name: result.verdict for result in report.results}
    assert verdicts == {
        "files": "not checked",
        **dict.fromkeys(JUDGED, "ok"),
        "speed": "told",
        "memory": "not checked",
        "CPU = GPU": "not checked",
    }, report.failed
    assert told == report.results and report.exit_code == 0
    assert {result.name for result in report.unchecked} == {"files", "memory", "CPU = GPU"}


def test_passes_are_counted_at_most_sixty_with_one_model_in_memory_at_a_time() -> None:
    sides, rows = sides_of_tiny("qwen2_5_omni"), 0
    held: list[weakref.ref[Any]] = []

    def count(_module: Any, args: Any, kwargs: Any) -> None:
        nonlocal rows
        rows += len(args[0] if args else kwargs["hidden_states"])

    def counted(published: Any) -> None:
        layer = raw(published.get_submodule("model.language_model").layers[0])
        layer.register_forward_pre_hook(count, with_kwargs=True)

    def plain(row: Any) -> Any:
        made = sides.plain(row)
        counted(made.model)
        held.append(weakref.ref(made.model))
        return made

    def hooked() -> Any:
        assert held[0]() is None
        made: Any = sides.hooked()
        counted(made.model.published)
        return made

    gc.disable()
    try:
        report = verify(Sides("counted", plain, hooked), CLIP)
    finally:
        gc.enable()
    assert len(report.results) == 15 and not report.failed
    towers_alone = 6
    assert 30 < report.passes == rows + towers_alone <= 60
    assert torch.is_grad_enabled()


def test_a_side_that_does_not_open_is_a_failure_that_ends_the_list() -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such weights")

    sides = sides_of_tiny("qwen3_omni")
    for name, failing in (
        ("plain", Sides("tiny", broken, sides.hooked)),
        ("open", Sides("tiny", sides.plain, broken)),
    ):
        report = verify(failing, CLIP)
        assert report.results == [judged(name, False, "RuntimeError: no such weights")]
        assert report.exit_code == 1

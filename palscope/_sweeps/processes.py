"""The processes that share a run: one alone, or those of `accelerate launch`."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch


def together() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    if not together():
        return 0, 1
    state = _state()
    return int(state.process_index), int(state.num_processes)


def device() -> torch.device | None:
    """The device that this process was given; None where it is alone and may choose."""
    return _state().device if together() else None


def wait() -> None:
    """Return when every process has come here."""
    if together():
        _state().wait_for_everyone()


def said_by_first(text: str | None) -> str | None:
    """What the first process says here; the others' `text` is not heard."""
    if not together():
        return text
    from accelerate.utils import broadcast_object_list

    _state()
    heard: list[str | None] = [text]
    return cast(Any, broadcast_object_list)(heard)[0]


def _state() -> Any:
    """Accelerate's state. Imported late: with one process alone, tables need no torch."""
    import torch
    from accelerate import PartialState

    # One process may have an hour more to do than another, which is no fault of theirs. Without a
    # GPU, accelerate has to be told: else each process believes to be alone.
    no_gpu = not torch.cuda.is_available()
    return cast(Any, PartialState)(cpu=no_gpu, timeout=timedelta(days=30))

"""The processes that share a run: one alone, or those of `accelerate launch`."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch


def distributed() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """This process's number, from 0."""
    return int(_state().process_index) if distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return int(_state().num_processes) if distributed() else 1


def device() -> torch.device | None:
    """The device that this process was given; None where it is alone and may choose."""
    return _state().device if distributed() else None


def wait() -> None:
    """Return when every process has come here."""
    if distributed():
        _state().wait_for_everyone()


def broadcast(text: str | None) -> str | None:
    """The first process's `text`; what the others give here does not count."""
    if not distributed():
        return text
    from accelerate.utils import broadcast_object_list

    _state()
    shared: list[str | None] = [text]
    return cast(Any, broadcast_object_list)(shared)[0]


@cache
def _state() -> Any:
    """Accelerate's state. Imported late: with one process alone, tables need no torch."""
    import torch
    from accelerate import PartialState

    # One process may have an hour more to do than another, which is no fault of theirs. Without a
    # GPU, accelerate has to be told: else each process believes to be alone.
    no_gpu = not torch.cuda.is_available()
    state = cast(Any, PartialState)(cpu=no_gpu, timeout=timedelta(days=30))
    # Threads that still run when the interpreter ends now and then abort it.
    atexit.register(state.destroy_process_group)
    return state

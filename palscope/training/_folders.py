"""A training's folder: what is trained in it, and whether that is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palscope._files import make_folder, read_object, write_json
from palscope._sweeps import processes
from palscope.errors import PalscopeError

BEGUN, DONE = "begun.json", "trained.json"


def is_trained(folder: Path, wanted: Mapping[str, Any], what: str) -> bool:
    """Whether `folder` holds this training, finished. Where there is none it is begun.

    Args:
        folder: of one training.
        wanted: plain data that decides its result.
        what: what `wanted` consists of, for the message.

    Raises:
        PalscopeError: the folder holds another training.
    """
    begun = folder / BEGUN
    processes.wait()  # no process may find a folder that another has just begun to be its own
    told = "what a training consists of"
    there = read_object(begun, told, PalscopeError) if begun.is_file() else None
    done = (folder / DONE).is_file()
    processes.wait()
    if there is None:
        if processes.rank() == 0:
            make_folder(folder)
            write_json(begun, wanted)
        processes.wait()
        return False
    if there != json.loads(json.dumps(wanted)):
        raise PalscopeError(
            f"{folder} holds a training with another {what}; give another folder, or remove that "
            "one."
        )
    return done


def mark_trained(folder: Path, told: Mapping[str, Any]) -> None:
    """Note that the training in `folder` is done."""
    if processes.rank() == 0:
        write_json(folder / DONE, told)
    processes.wait()

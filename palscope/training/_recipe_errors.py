"""What is said of a recipe that does not fit: which key, in which file, and what stands there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

_MOST_MESSAGES = 10
EVERY_STAGE = "every_stage"
"""The section whose values hold for each stage that does not give its own."""


def messages(
    error: ValidationError, pieces: Sequence[tuple[Path, Mapping[str, Any]]] = ()
) -> list[str]:
    """One short message an error: file, key, what is wrong and what stands there."""
    said: list[str] = []
    found = error.errors(include_url=False)
    for each in found[:_MOST_MESSAGES]:
        key = ".".join(map(str, each["loc"])) or "the recipe"
        file = _file_of(each["loc"], pieces)
        told = each["msg"].removeprefix("Value error, ")
        given = each["input"]
        shown = "" if isinstance(given, dict | list) or given is None else f" (it is {given!r})"
        said.append(f"{'' if file is None else f'{file}, '}{key}: {told}{shown}")
    more = len(found) - len(said)
    return [*said, f"and {more} more"] if more else said


def _file_of(
    loc: tuple[int | str, ...], pieces: Sequence[tuple[Path, Mapping[str, Any]]]
) -> str | None:
    """The last piece that holds the key, or as much of it as any does."""
    paths = [loc]
    if len(loc) > 2 and loc[0] == "stages":  # it may come from what all stages share
        paths.append((EVERY_STAGE, *loc[2:]))
    best, depth = None, 0
    for file, piece in pieces:
        for path in paths:
            held = _depth(path, piece)
            if held and held >= depth:
                best, depth = file.name, held
    return best


def _depth(loc: tuple[int | str, ...], piece: Any) -> int:
    """How many steps of a key's path a piece has."""
    for number, step in enumerate(loc):
        if not (isinstance(piece, dict) and step in piece):
            return number
        piece = piece[step]
    return len(loc)

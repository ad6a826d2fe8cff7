"""The one way in which things are known by name: a dict, one look-up, one way to add.

Encoders, resamplers, decoder families, published classes and benchmarks are a plain dict each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from palscope.errors import CheckpointError, PalscopeError

Entry = TypeVar("Entry")


def find(
    entries: Mapping[str, Entry],
    name: object,
    what: str,
    *,
    error: type[PalscopeError] = CheckpointError,
    hint: str = "",
) -> Entry:
    """The entry of that name.

    Args:
        entries: by name.
        name: whatever was given for one.
        what: an entry is, for the message.
        error: of its kind.
        hint: a sentence for the message's end.

    Raises:
        PalscopeError: there is none, and the message names those that there are.
    """
    if isinstance(name, str) and name in entries:
        return entries[name]
    raise error(
        f"there is no {what} {name!r}; expected one of {', '.join(entries)}."
        f"{' ' if hint else ''}{hint}"
    )


def add(entries: dict[str, Entry], name: str, entry: Entry, what: str) -> None:
    """Make classes known by a name. The same once more changes nothing.

    Raises:
        CheckpointError: others have that name.
    """
    # As written: a cell of a notebook that is run again makes the classes anew.
    if name in entries and repr(entries[name]) != repr(entry):
        raise CheckpointError(
            f"the {what} {name!r} is taken by {entries[name]!r}; choose another name."
        )
    entries[name] = entry

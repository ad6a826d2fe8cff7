"""A folder that a visitor types, or the first of those that are found."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import streamlit as st
from _given import FOLDER_CHARACTERS, short, typed
from streamlit.delta_generator import DeltaGenerator

from palscope.errors import PalscopeError


def choose_folder(
    found: Sequence[Path],
    label: str,
    *,
    key: str,
    example: str,
    help: str,
    there: str,
    none: str,
    where: DeltaGenerator | None = None,
) -> Path | None:
    """The typed one, else the first that is found; None while there is none.

    Args:
        found: named below the field.
        label: of the field.
        key: of the field, and in the address.
        example: in the empty field, where none is found.
        help: beside the field.
        there: before the names of those that are found.
        none: said where there is none.
        where: the field stands; in the sidebar where it is not said.
    """
    with st.sidebar if where is None else where:
        given = typed(
            label,
            key=key,
            most=FOLDER_CHARACTERS,
            bind="query-params",
            placeholder=str(found[0]) if found else example,
            help=help,
        )
        if found:
            st.caption(there + ", ".join(str(path) for path in found[:20]))
    if given is None:
        return None
    if given or found:
        return Path(given) if given else found[0]
    st.info(none)
    return None


@contextmanager
def looking_into(folder: Path) -> Generator[None]:
    """Within, what cannot be looked into is told: too long a name, one that one may not read."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PalscopeError(f"{short(str(folder))} cannot be looked into: {reason}.") from error

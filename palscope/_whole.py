"""Whole numbers, as callers give them: the one rule of what counts as one.

Layers, heads, clips, rows, columns and counts are whole numbers of any library (`operator.index`:
`np.int64` is one). A truth value, a text and a float are none, not even `2.0`: where someone gives
`layers=[1.7]` or `layers="12"`, something else was meant, and no layer is the right guess.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, cast

from palscope.errors import PalscopeError


def whole_number(
    given: Any, what: str, *, least: int | None = None, error: type[PalscopeError] = PalscopeError
) -> int:
    """`given` as Python's own whole number.

    Args:
        given: what a caller gave.
        what: its name, with which the message begins.
        least: the smallest that is allowed; None for any.
        error: what is raised.

    Raises:
        PalscopeError: or `error`: it is no whole number, or too small.
    """
    expected = "a whole number" if least is None else f"a whole number from {least}"
    try:
        # Python's and PyTorch's truth values have an index, too.
        truth = isinstance(given, bool) or str(getattr(given, "dtype", "")).endswith("bool")
        found = operator.index(cast(Any, None) if truth else given)
    except TypeError as no_index:
        raise error(f"{what} is {given!r}; expected {expected}.") from no_index
    if least is not None and found < least:
        raise error(f"{what} is {found}; expected {expected}.")
    return found


def whole_numbers(
    given: Any, what: str, *, least: int | None = None, error: type[PalscopeError] = PalscopeError
) -> tuple[int, ...]:
    """`given`, one whole number or several, in their order.

    Arguments and errors are those of `whole_number`; a text, and what cannot be iterated over, are
    refused.
    """
    if hasattr(given, "__index__") and getattr(given, "ndim", 0) == 0:
        return (whole_number(given, what, least=least, error=error),)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise error(f"{what} is {given!r}; expected whole numbers, e.g. [0, 1].")
    each: Iterable[Any] = given
    return tuple(whole_number(one, f"one of {what}", least=least, error=error) for one in each)

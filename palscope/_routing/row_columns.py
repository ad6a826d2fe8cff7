"""The columns of one row that somebody asks for: its text, or those that numbers name."""

from __future__ import annotations

from collections.abc import Sequence

from palscope._routing.layout import TEXT, TokenLayout
from palscope.errors import PromptError


def text_columns(layout: TokenLayout, row: int) -> list[int]:
    """The columns of a row's text, in order."""
    return (layout.on_host.stream[row] == TEXT).nonzero()[:, 0].tolist()


def named_columns(layout: TokenLayout, row: int, numbers: Sequence[int]) -> list[int]:
    """The columns of `input_ids` that whole numbers name in a row, each once, as they are given.

    A negative number counts the row's real tokens from the right: -1 is the last, which predicts
    the answer.

    Raises:
        PromptError: a column does not exist, or is padding.
    """
    here = layout.on_host
    real: list[int] = here.real[row].nonzero()[:, 0].tolist()
    chosen: dict[int, None] = {}
    for number in numbers:
        if not -len(real) <= number < layout.width:
            raise PromptError(
                f"column {number} does not exist: row {row} has {len(real)} tokens in "
                f"{layout.width} columns. Give a column of input_ids, or -1 for the last token."
            )
        column = real[number] if number < 0 else number
        if not bool(here.real[row, column]):
            raise PromptError(
                f"column {column} is padding in row {row}; its tokens stand in columns {real[0]} "
                f"to {real[-1]}."
            )
        chosen[column] = None
    return list(chosen)

"""Columns of one row: its text, and those that numbers name."""

from __future__ import annotations

import pytest

from palscope._routing.row_columns import named_columns, text_columns
from palscope.errors import PromptError
from tests.routing.test_layout import build, places

ROWS = [[5, *places(2), 6, 7], [8]]


def test_text_is_what_is_neither_sound_nor_padding() -> None:
    layout = build(ROWS, [2])
    assert text_columns(layout, 0) == [0, 4, 5] and text_columns(layout, 1) == [5]


def test_numbers_name_columns_from_either_end() -> None:
    left, right = build(ROWS, [2]), build(ROWS, [2], left=False)
    assert named_columns(left, 0, (-1, 0, 5, -2)) == [5, 0, 4]  # once each, as they are asked for
    assert named_columns(left, 1, (-1,)) == [5] and named_columns(right, 1, (-1,)) == [0]


@pytest.mark.parametrize("column", [6, -2, 0])
def test_what_is_no_token_is_refused(column: int) -> None:
    told = "padding in row 1; its tokens stand in columns 5 to 5" if column == 0 else "1 tokens in"
    with pytest.raises(PromptError, match=told):
        named_columns(build(ROWS, [2]), 1, (column,))

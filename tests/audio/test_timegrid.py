from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palscope.audio import TimeGrid
from palscope.errors import AudioError


def test_spans_follow_one_another_and_end_with_the_clip():
    spans = TimeGrid(0.1).spans(4, duration=0.35)
    np.testing.assert_allclose(spans, [[0, 0.1], [0.1, 0.2], [0.2, 0.3], [0.3, 0.35]])


def test_tokens_between_takes_every_overlapping_token():
    grid = TimeGrid(0.1)
    assert grid.tokens_between(0.25, 0.41, 10) == range(2, 5)
    assert grid.tokens_between(0.25, 0.26, 10) == range(2, 3)
    assert grid.tokens_between(0.9, 7.0, 10) == range(9, 10)


@given(st.integers(0, 5000), st.integers(1, 50), st.sampled_from([0.02, 0.1, 0.16, 0.3]))
def test_a_window_on_token_edges_takes_exactly_those_tokens(first: int, n: int, step: float):
    # 3 * 0.1 is 0.30000000000000004: rounding must not add or lose a token.
    grid = TimeGrid(step)
    taken = grid.tokens_between(first * step, (first + n) * step, 10_000)
    assert taken == range(first, first + n)


@given(st.floats(0, 9.9), st.floats(1e-3, 5))
def test_taken_tokens_overlap_the_window_and_others_do_not(t0: float, length: float):
    grid, n = TimeGrid(0.1), 100
    taken = grid.tokens_between(t0, t0 + length, n)
    for i in range(n):
        start, end = grid.span(i)
        overlap = min(end, t0 + length) - max(start, t0)
        if abs(overlap) > 1e-5:
            assert (i in taken) == (overlap > 0)


def test_coarse_tokens_cover_their_fine_ones():
    fine = TimeGrid(0.02)
    assert fine.coarsen(5).span(3) == pytest.approx((fine.span(15)[0], fine.span(19)[1]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda grid: grid.span(-1), "Token -1"),
        (lambda grid: grid.spans(3, duration=0.2), "do not fit"),
        (lambda grid: grid.tokens_between(0.5, 0.5, 10), "no window"),
        (lambda grid: grid.tokens_between(-0.1, 0.5, 10), "no window"),
        (lambda grid: grid.tokens_between(1.0, 2.0, 10), "after the last of 10"),
        (lambda grid: grid.tokens_between(float("nan"), 1.0, 10), "no window"),
        (lambda grid: grid.coarsen(0), "at least 1"),
        (lambda grid: TimeGrid(0.0), "positive"),
        (lambda grid: TimeGrid(float("nan")), "positive"),
    ],
)
def test_what_lies_outside_is_refused(call, says: str):
    with pytest.raises(AudioError, match=says):
        call(TimeGrid(0.1))

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


PATCHES = TimeGrid(0.16, per_step=4, hz=(0, 500, 1000, 2000, 8000))


def test_tokens_that_share_a_step_have_its_seconds_and_a_band_each():
    assert [PATCHES.span(i) for i in (0, 3, 4)] == [(0, 0.16), (0, 0.16), (0.16, 0.32)]
    assert [PATCHES.band(i) for i in (0, 3, 5)] == [(0, 500), (2000, 8000), (500, 1000)]
    assert TimeGrid(0.1).band(3) is None
    spans = PATCHES.spans(8, duration=0.2)
    assert spans.tolist() == [[0, 0.16]] * 4 + [[0.16, 0.2]] * 4
    assert [PATCHES.tokens(seconds) for seconds in (0.01, 0.16, 0.161, 0.48)] == [4, 4, 8, 12]


@given(st.floats(0, 3), st.floats(0.001, 2), st.integers(1, 8))
def test_whole_steps_are_found(t0: float, length: float, rows: int):
    grid, n = TimeGrid(0.16, rows), 40 * rows
    found = grid.tokens_between(t0, t0 + length, n)
    assert len(found) % rows == 0 and found.start % rows == 0
    plain = TimeGrid(0.16).tokens_between(t0, t0 + length, 40)
    assert (found.start, found.stop) == (plain.start * rows, plain.stop * rows)


def test_pooling_within_a_step_or_over_whole_ones():
    assert PATCHES.coarsen(2) == TimeGrid(0.16, 2, (0, 1000, 8000))
    assert PATCHES.coarsen(4) == TimeGrid(0.16, 1, (0, 8000))
    assert PATCHES.coarsen(8) == TimeGrid(0.32)
    for k in (3, 6):
        with pytest.raises(AudioError, match="share a step"):
            PATCHES.coarsen(k)
    with pytest.raises(AudioError, match="share each step"):
        _ = PATCHES.seconds_per_token


def test_tokens_of_the_whole_clip():
    grid = TimeGrid(float("inf"), per_step=3)
    assert grid.whole_clip and not PATCHES.whole_clip
    assert grid.tokens(0.2) == grid.tokens(7200) == 3
    assert grid.spans(3, duration=1.5).tolist() == [[0, 1.5]] * 3
    assert grid.tokens_between(0.3, 0.4, 3) == range(3)
    assert grid.coarsen(3) == TimeGrid(float("inf"))


@pytest.mark.parametrize(
    "wrong", [{"per_step": 0}, {"hz": (0, 1)}, {"per_step": 2, "hz": (0, 2, 1)}]
)
def test_grids_that_are_none(wrong: dict):
    with pytest.raises(AudioError):
        TimeGrid(0.1, **({"per_step": 2} | wrong))

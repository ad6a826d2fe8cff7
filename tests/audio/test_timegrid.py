from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palscope.audio import TimeGrid
from palscope.audio._timegrid import overlaps, steps_within
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


@given(st.integers(1, 3_600_000), st.sampled_from([10, 20, 40, 80, 160]))
@example(140, 20)  # 0.14 / 0.02 is 7.000000000000001
@example(141, 20)
@example(139, 20)
@example(1, 20)
def test_a_clip_has_a_token_for_each_step_begun(ms: int, step: int):
    """Counted in whole milliseconds, up to an hour."""
    assert TimeGrid(step / 1000).tokens(ms / 1000) == -(-ms // step)
    assert TimeGrid(step / 1000, per_step=3).tokens(ms / 1000) == 3 * -(-ms // step)


def test_a_window_after_the_last_tokens_that_share_a_step_is_refused():
    grid = TimeGrid(0.16, per_step=8)
    assert grid.tokens_between(0.31, 0.5, 16) == range(8, 16)
    with pytest.raises(AudioError, match="after the last of 16"):
        grid.tokens_between(0.33, 0.5, 16)


def test_coarse_tokens_cover_their_fine_ones():
    fine = TimeGrid(0.02)
    assert fine.coarsen(5).span(3) == pytest.approx((fine.span(15)[0], fine.span(19)[1]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda grid: grid.span(-1), "token is -1"),
        (lambda grid: grid.spans(3, duration=0.2), "do not fit"),
        (lambda grid: grid.tokens_between(0.5, 0.5, 10), "no stretch of time"),
        (lambda grid: grid.tokens_between(-0.1, 0.5, 10), "no stretch of time"),
        (lambda grid: grid.tokens_between(1.0, 2.0, 10), "after the last of 10"),
        (lambda grid: grid.tokens_between(float("nan"), 1.0, 10), "no stretch of time"),
        (lambda grid: grid.coarsen(0), "whole number from 1"),
        (lambda grid: grid.span(1.5), "whole number"),
        (lambda grid: grid.band(True), "whole number"),
        (lambda grid: grid.spans("3"), "whole number"),
        (lambda grid: grid.coarsen(2.0), "whole number"),
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


CHUNKS = TimeGrid(1 / 13, centres=tuple(0.08 * i for i in range(13)))
"""Thirteen tokens each second, the second's last one nearer to its end than the others apart."""


@given(st.integers(0, 500), st.sampled_from([1, 4]))
def test_uneven_steps_lie_nearest_to_their_centres(i: int, rows: int):
    grid = TimeGrid(1 / 13, rows, centres=CHUNKS.centres)
    step = i // rows
    cycle, place = divmod(step, 13)
    start = 0.0 if place == 0 else 0.08 * place - 0.04
    end = 1.0 if place == 12 else 0.08 * place + 0.04
    assert grid.span(i) == pytest.approx((cycle + start, cycle + end), abs=1e-9)
    np.testing.assert_allclose(grid.spans(i + 1)[i], grid.span(i))
    assert (grid.cycle, grid.seconds_per_cycle) == (13 * rows, 1.0)


@given(st.integers(1, 100_000))
def test_a_clip_has_the_tokens_whose_centres_it_reaches(milliseconds: int):
    whole, rest = divmod(milliseconds, 1000)
    reached = sum(80 * place < rest for place in range(13))
    assert CHUNKS.tokens(milliseconds / 1000) == whole * 13 + reached


@given(st.integers(2, 3000), st.data())
def test_uneven_tokens_cover_a_clip_to_its_end(frames: int, data: st.DataObject):
    seconds = frames / 100
    n = CHUNKS.tokens(seconds)
    spans = CHUNKS.spans(n, duration=seconds)
    assert spans[0, 0] == 0 and spans[-1, 1] == seconds
    np.testing.assert_array_equal(spans[1:, 0], spans[:-1, 1])
    assert (spans[:, 1] > spans[:, 0]).all()
    t0 = data.draw(st.floats(0, seconds - 0.01))
    t1 = data.draw(st.floats(t0 + 0.005, seconds))
    taken = CHUNKS.tokens_between(t0, t1, n)
    overlap = np.minimum(spans[:, 1], t1) - np.maximum(spans[:, 0], t0)
    expected = np.flatnonzero(overlap > 1e-5)
    assert set(expected) <= set(taken) <= set(np.flatnonzero(overlap > -1e-5))


def test_uneven_tokens_by_hand():
    # 2.07 s: 26 tokens of the two whole seconds, one at 2.00 s; the next would be at 2.08 s.
    assert CHUNKS.tokens(2.07) == 27 and CHUNKS.tokens(2.09) == 28
    assert CHUNKS.spans(27, duration=2.07)[-2:].tolist() == [[1.92, 2.0], [2.0, 2.07]]
    assert CHUNKS.tokens_between(2.05, 2.07, 27) == range(26, 27)
    assert CHUNKS.tokens_between(2.05, 2.07, 28) == range(27, 28)
    assert CHUNKS.tokens_between(0.93, 1.03, 27) == range(12, 14)
    with pytest.raises(AudioError, match="after the last of 27"):
        CHUNKS.tokens_between(2.08, 2.1, 27)


def test_steps_with_one_centre_are_equal_and_counted_by_it():
    pairs = TimeGrid(0.04, centres=(0.02,))
    assert [pairs.tokens(frames / 100) for frames in (3, 6, 7, 10, 11)] == [1, 1, 2, 2, 3]
    assert pairs.spans(3).tolist() == TimeGrid(0.04).spans(3).tolist()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: CHUNKS.coarsen(1),
        lambda: CHUNKS.seconds_per_token,
        lambda: CHUNKS.equal_step,
    ],
)
def test_uneven_steps_have_no_common_length(ask):
    with pytest.raises(AudioError, match="13 steps of different length"):
        ask()


@pytest.mark.parametrize("centres", [(), (0.0, 0.2), (0.1, 0.0), (-0.1, 0.0), (0.05, 0.05)])
def test_centres_that_are_none(centres: tuple[float, ...]):
    with pytest.raises(AudioError, match="no middles"):
        TimeGrid(0.1, centres=centres)
    with pytest.raises(AudioError, match="no middles"):
        TimeGrid(float("inf"), centres=(0.0,))


@given(
    st.sampled_from([0.02, 0.1, 0.16, 1 / 3]),
    st.lists(st.tuples(st.floats(0, 3), st.floats(1e-12, 2)), min_size=1, max_size=6),
)
@example(0.1, [(0.3, 0.1), (0.1 * 3, 1e-7), (0.2 + 9e-7, 0.1), (5.0, 1.0), (0.05, 1e-11)])
def test_many_stretches_at_once_take_what_each_takes_alone(
    step: float, stretches: list[tuple[float, float]]
):
    edges = TimeGrid(step).edges(12)
    t0 = np.array([start for start, _ in stretches])
    t1 = t0 + np.array([length for _, length in stretches])
    first, behind = steps_within(edges, t0, t1)
    for row, (start, end) in enumerate(zip(t0, t1, strict=True)):
        alone = np.flatnonzero(overlaps(edges[:-1], edges[1:], start, end))
        assert list(range(first[row], behind[row])) == alone.tolist()
        assert len(alone) or start > edges[-1] - 1e-5  # on tokens, one at least

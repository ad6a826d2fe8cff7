from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from palscope._statistics import CLUSTERS, change_interval, share_interval, wilson

RNG = np.random.default_rng


@given(st.integers(1, 200), st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_wilson_s_interval_is_scipy_s(n: int, got: int) -> None:
    got = min(got, n)
    other = stats.binomtest(got, n).proportion_ci(method="wilson")
    assert wilson(got, n) == pytest.approx((other.low, other.high), abs=1e-12)
    # one question a clip: clips are what is counted
    assert share_interval([1] * got + [0] * (n - got), [1] * n) == wilson(got, n)


def test_four_of_four_are_not_all() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, and none of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(4, 4) == pytest.approx((0.5101, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)  # nothing asked is nothing known
    with pytest.raises(ValueError, match="no share"):
        wilson(3, 2)


def test_questions_about_one_clip_count_as_what_they_say() -> None:
    right = RNG(0).random(100) < 0.5
    apart = wilson(right.sum(), 100)
    together = share_interval(20 * right, np.full(100, 20))
    # one right answer of a clip comes with nineteen: the interval is that of a hundred clips
    assert together == pytest.approx(apart, abs=0.005)
    # and where nothing varies, that of as many clips as there are
    assert share_interval([20] * 10, [20] * 10) == wilson(10, 10)
    assert not np.isfinite(share_interval([2, 1], [3, 3])).any()


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("alike", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("clips", [CLUSTERS, 20])
def test_the_interval_of_a_share_covers_it(share: float, alike: float, clips: int) -> None:
    rng, hits = RNG(0), []
    a, b = (each * (1 / alike - 1) for each in (share, 1 - share))
    for _ in range(500):
        of = rng.integers(1, 7, size=clips)
        low, high = share_interval(rng.binomial(of, rng.beta(a, b, size=clips)), of)
        hits.append(low <= share <= high)
    assert np.mean(hits) > 0.92 - 3 * np.sqrt(0.92 * 0.08 / 500)


@pytest.mark.parametrize(("lost", "won"), [(0.45, 0.45), (0.05, 0.02), (0.3, 0.1)])
@pytest.mark.parametrize("clips", [CLUSTERS, 20])
def test_the_interval_of_a_change_covers_it(lost: float, won: float, clips: int) -> None:
    draws = RNG(0).choice([-1, 0, 1], p=[lost, 1 - lost - won, won], size=(1000, clips))
    ends = np.array([change_interval(draw) for draw in draws])
    held = (ends[:, 0] <= won - lost) & (won - lost <= ends[:, 1])
    assert held.mean() > 0.92 - 3 * np.sqrt(0.92 * 0.08 / 1000)


def test_clips_that_stay_as_they_were_leave_room_for_change() -> None:
    low, high = change_interval(np.zeros(20))
    assert low == -high and 0.05 < high < 0.15
    assert not change_interval(np.zeros(CLUSTERS - 1)).known

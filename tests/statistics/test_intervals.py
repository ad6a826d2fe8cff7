"""That an interval, where one is given, covers the truth; the long table is a benchmark."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from palscope._statistics import (
    FEWEST,
    Interval,
    correlation_interval,
    difference_of,
    mean_interval,
    mean_intervals,
    peak_interval,
    ratio,
    ratio_interval,
)

DRAWS = 2000
COVERED = 0.92
RNG = np.random.default_rng
NOISE = 3 * np.sqrt(COVERED * (1 - COVERED) / DRAWS)  # of the simulation, three deviations

POPULATIONS: dict[str, tuple[Callable[..., np.ndarray], float]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "heavy tails": (lambda rng, size: rng.standard_t(3, size=size), 0.0),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0),
    "log-normal": (lambda rng, size: rng.lognormal(size=size), float(np.exp(0.5))),
    "one in five": (lambda rng, size: (rng.random(size) < 0.2) * rng.normal(3, 0.5, size), 0.6),
}


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("n", [5, FEWEST, 60])
def test_a_mean_s_interval_covers_it_or_is_not_given(name: str, n: int) -> None:
    draw, truth = POPULATIONS[name]
    low, high = mean_intervals(draw(RNG(0), (DRAWS, n)))
    given = ~np.isnan(low)
    if n < FEWEST:
        assert not given.any()
    else:  # but for samples of one value alone
        assert given.mean() > 0.98
        assert ((low <= truth) & (truth <= high))[given].mean() > COVERED - NOISE


def test_what_was_given_before_would_fail_here() -> None:
    # the percentile bootstrap of five values, on which every interval rested
    values = RNG(0).normal(size=(DRAWS, 5))
    drawn = values[:, RNG(1).integers(5, size=(500, 5))].mean(-1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    assert ((low <= 0) & (high >= 0)).mean() < COVERED - NOISE


@pytest.mark.parametrize("spans", ["alike", "skewed", "skewed effects"])
def test_a_ratio_s_interval_covers_it_or_is_not_given(spans: str) -> None:
    rng, hits = RNG(0), []
    for _ in range(400):
        if spans == "skewed effects":
            bottom = rng.normal(5, 1, FEWEST)
            top, truth = 0.3 * bottom + rng.lognormal(size=FEWEST), 0.3 + np.exp(0.5) / 5
        else:
            bottom = rng.normal(3, 1, FEWEST) if spans == "alike" else rng.lognormal(size=FEWEST)
            top, truth = 0.6 * bottom + rng.normal(0, 0.5, FEWEST), 0.6
        found = ratio_interval(top, bottom)
        hits += [found.low <= truth <= found.high] if found.known else []
    assert len(hits) > 350
    assert np.mean(hits) > COVERED - 3 * np.sqrt(COVERED * (1 - COVERED) / len(hits))


def test_a_ratio_to_what_may_be_nothing_has_no_interval() -> None:
    rng = RNG(0)
    assert not ratio_interval(rng.normal(1, 1, 30), rng.normal(0, 1, 30)).known
    assert not ratio_interval([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]).known
    assert np.isnan(ratio([1.0, 2.0], [3.0, -3.0])) and np.isnan(ratio([1.0], [0.0]))
    # sums that cancel but for their rounding
    assert np.isnan(ratio([1.0, 1.0, 1.0], [0.1, 0.2, -0.3]))
    assert ratio([1.0, 3.0], [2.0, 6.0]) == pytest.approx(0.5)


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-50, 50))
@settings(max_examples=10, deadline=None)
def test_an_interval_moves_with_its_values(seed: int, scale: float, shift: float) -> None:
    values = RNG(seed).gamma(2.0, size=FEWEST + seed % 30)
    low, high = mean_interval(values)
    moved = mean_interval(values * scale + shift)
    assert moved == pytest.approx((low * scale + shift, high * scale + shift), rel=1e-6, abs=1e-6)
    # turned round, and never narrower than Student's
    turned = mean_interval(-values)
    assert turned == pytest.approx((-high, -low), rel=1e-6, abs=1e-9)
    student = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert low <= student[0] + 1e-12 and high >= student[1] - 1e-12
    # of the ratio to ones it is the same
    assert ratio_interval(values, np.ones_like(values)) == pytest.approx((low, high), rel=1e-6)


def test_values_that_are_missing_do_not_count_and_none_may_be_infinite() -> None:
    values = RNG(0).normal(size=FEWEST)
    whole = mean_interval(values)
    assert mean_interval([*values, np.nan]) == pytest.approx(whole)
    assert np.isnan(mean_interval([*values[1:], np.nan])).all()
    with pytest.raises(ValueError, match="infinite"):
        mean_interval([*values, np.inf])


def test_clips_that_are_all_alike_say_nothing_of_the_next() -> None:
    assert np.isnan(mean_interval(np.zeros(50))).all()


def test_a_difference_of_unlike_clips_adds_squares() -> None:
    found = difference_of(5.0, Interval(2.0, 6.0), 1.0, Interval(0.0, 5.0))
    assert found == pytest.approx((4 - 5.0, 4 + np.sqrt(2)))


def test_a_rank_correlation_s_interval_covers_it() -> None:
    rng, hits = RNG(0), []

    def clips(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        xs = rng.standard_t(3, size=(count, 12)) * rng.lognormal(0, 0.6, size=(count, 1))
        return list(zip(xs, 0.7 * xs + rng.standard_t(3, size=xs.shape), strict=True))

    def spearman(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])

    many = clips(5_000)
    truth = spearman(np.concatenate([x for x, _ in many]), np.concatenate([y for _, y in many]))
    for _ in range(100):
        low, high = correlation_interval(spearman, clips(FEWEST))
        hits.append(low <= truth <= high)
    assert np.mean(hits) > COVERED - 3 * np.sqrt(COVERED * (1 - COVERED) / len(hits))
    assert not correlation_interval(spearman, clips(FEWEST - 1)).known


def test_two_peaks_of_nearly_one_height_are_both_in_the_interval() -> None:
    layers = np.arange(30)
    curve = np.exp(-(((layers - 8) / 3) ** 2)) + 0.98 * np.exp(-(((layers - 20) / 3) ** 2))
    rng, hits = RNG(0), []
    for _ in range(50):
        found = peak_interval(curve + 0.3 * rng.normal(size=(FEWEST, 30)), layers)
        hits.append(found.low <= 8 <= found.high)
    assert np.mean(hits) > COVERED - 3 * np.sqrt(COVERED * (1 - COVERED) / len(hits))
    assert not peak_interval(np.ones((FEWEST - 1, 30)), layers).known

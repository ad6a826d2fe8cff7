from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._statistics import false_discovery, least_p, paired_p


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact p, by counting."""
    n, most = only_a + only_b, max(only_a, only_b)
    tail = sum(1 for ways in itertools.product((0, 1), repeat=n) if sum(ways) >= most) / 2**n
    return min(1.0, 2 * tail)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_one_question_a_clip_makes_it_mcnemar_s(only_a: int, only_b: int, same: int) -> None:
    changes = [1] * only_b + [-1] * only_a + [0] * same
    assert paired_p(changes) == pytest.approx(mcnemar(only_a, only_b))
    assert paired_p(changes) >= least_p(changes) - 1e-12


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_several_questions_a_clip_are_exchanged_together(changes: list[int]) -> None:
    moved = [each for each in changes if each]
    sums = [
        sum(sign * each for sign, each in zip(signs, moved, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(moved))
    ]
    above = sum(each >= sum(moved) for each in sums) / len(sums)
    below = sum(each <= sum(moved) for each in sums) / len(sums)
    assert paired_p(changes) == pytest.approx(min(1.0, 2 * min(above, below)))
    assert paired_p(changes) >= least_p(changes) - 1e-12


def test_few_clips_cannot_be_sure_and_the_least_p_says_so() -> None:
    assert least_p([3, 0, 5, 2, 9]) == 2 / 2**4 == paired_p([3, 0, 5, 2, 9])
    assert least_p([0, 0]) == paired_p([0, 0]) == 1.0
    # twenty questions about one clip are one exchange
    assert paired_p([20]) == 1.0


def test_many_clips_are_drawn_at_random_and_alike_each_time() -> None:
    rng = np.random.default_rng(0)
    changes = rng.normal(1.0, 1.0, 40)
    assert paired_p(changes) == paired_p(changes) < 0.001
    even = rng.normal(1.0, 1.0, 20)
    assert paired_p([*even, *-even]) > 0.9


def test_finds_of_chance_are_counted_over_the_tests_that_there_are() -> None:
    # Benjamini and Hochberg (1995): p times the number of tests over its rank
    assert false_discovery([0.01, 0.04, 0.03, np.nan]) == pytest.approx(
        [0.03, 0.04, 0.04, np.nan], nan_ok=True
    )
    assert np.isnan(false_discovery([np.nan])).all()

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import (
    change_interval,
    difference_of_scores,
    ratio_interval,
    score_of,
    wilson,
)


def points(got: list[float], clips: list[int] | None = None, of: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame({"clip": clips or range(len(got)), "got": got, "of": of})


def test_right_and_wrong_answers_are_a_share_of_clips() -> None:
    found = score_of(points([1.0, 1.0, 1.0, 1.0]))
    assert (found.score, found.interval) == (1.0, pytest.approx(wilson(4, 4)))
    # two questions a clip, all wrong: ten clips, not twenty questions
    assert score_of(points([0.0] * 20, [n // 2 for n in range(20)])).interval == wilson(0, 10)


def test_other_marks_are_a_ratio_of_means() -> None:
    got = list(np.random.default_rng(0).lognormal(size=40))
    found = score_of(points(got))
    assert found.interval == ratio_interval(got, np.ones(40)) and found.interval.known
    few = score_of(points([0.5, 0.7]))
    assert not few.interval.known and few.by_clip.tolist() == [0.5, 0.7]


def paired(a: np.ndarray, b: np.ndarray, clips: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"clip": clips, "got_a": a, "of_a": 1.0, "got_b": b, "of_b": 1.0})


def test_a_difference_is_that_of_the_same_clips() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random(30) < 0.5).astype(float), (rng.random(30) < 0.9).astype(float)
    found = difference_of_scores(paired(a, b, np.arange(30)))
    assert found.interval == pytest.approx(change_interval(b - a))
    c = rng.random(400)
    rows = paired(c, c + rng.normal(0.05, 0.01, 400), np.arange(400))
    low, high = difference_of_scores(rows).interval
    assert (low, high) == pytest.approx((0.049, 0.051), abs=0.0015)


def test_more_questions_about_the_same_clips_make_nothing_surer() -> None:
    a, b = np.zeros(10), np.ones(10)
    once = difference_of_scores(paired(a, b, np.arange(10)))
    often = difference_of_scores(paired(np.tile(a, 20), np.tile(b, 20), np.tile(np.arange(10), 20)))
    assert often.interval == pytest.approx(once.interval)
    assert often.p == pytest.approx(once.p) == pytest.approx(2 / 2**10)

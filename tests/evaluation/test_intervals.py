from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope.evaluation.intervals import (
    difference_interval,
    mcnemar,
    ratio_interval,
    wilson,
)


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, and none of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_nothing_asked_is_nothing_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError):
        wilson(3, 2)


def marks(got: list[float], clips: list[int] | None = None, of: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame({"clip": clips or range(len(got)), "got": got, "of": of})


def test_the_bootstrap_agrees_with_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    got = list((rng.random(2000) < 0.3).astype(float))
    low, high = ratio_interval(marks(got)) or (0, 0)
    share, half = np.mean(got), 1.96 * np.sqrt(0.3 * 0.7 / 2000)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.003)


def test_questions_about_one_clip_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    clips = list(np.repeat(np.arange(100), 20))
    got = list(np.repeat(rng.random(100) < 0.5, 20).astype(float))
    apart, together = ratio_interval(marks(got)), ratio_interval(marks(got, clips))
    assert apart is not None and together is not None
    # one right answer of a clip comes with nineteen: the interval is that of a hundred
    assert together[1] - together[0] == pytest.approx(np.sqrt(20) * (apart[1] - apart[0]), rel=0.15)


def test_where_all_are_right_the_interval_is_wilsons() -> None:
    assert ratio_interval(marks([1.0] * 20)) == wilson(20, 20)
    assert ratio_interval(marks([0.0] * 20, [n // 2 for n in range(20)])) == wilson(0, 10)
    # of a mean that is no share nothing of the kind is known
    assert ratio_interval(marks([0.0] * 20), share=False) == (0.0, 0.0)
    assert ratio_interval(marks([0.5])) is None


def test_a_paired_interval_is_that_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(400)
    b = a + rng.normal(0.05, 0.01, 400)
    rows = pd.DataFrame({"clip": range(400), "got_a": a, "of_a": 1.0, "got_b": b, "of_b": 1.0})
    low, high = difference_interval(rows) or (0, 0)
    assert (low, high) == pytest.approx((0.049, 0.051), abs=0.0015)
    assert difference_interval(rows[:1]) is None


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(9, 1) == mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)

"""The bootstrap over clips, and the area under the ROC curve, held against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from palscope._statistics import auroc, auroc_interval, mean_interval, resampled


def test_the_area_is_the_share_of_pairs_that_are_in_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        score, listed = rng.integers(0, 6, 15).astype(float), rng.random(15) < 0.4
        pairs = [
            1.0 if a > b else 0.5 if a == b else 0.0 for a in score[listed] for b in score[~listed]
        ]
        assert auroc(score, listed) == pytest.approx(np.mean(pairs))


def test_all_on_the_list_or_none_is_no_comparison() -> None:
    for listed in (True, False):
        assert np.isnan(auroc(np.arange(4.0), np.full(4, listed)))


def test_the_interval_of_a_mean_is_nearly_students() -> None:
    values = np.random.default_rng(1).normal(size=60)
    low, high = resampled(lambda chosen: float(values[chosen].mean()), 60)
    np.testing.assert_allclose([low, high], mean_interval(values), atol=0.03)


def test_of_few_clips_there_is_none() -> None:
    assert not resampled(lambda chosen: float(chosen.mean()), 19).known
    assert resampled(lambda chosen: float(chosen.mean()), 20).known


def test_the_interval_of_an_area_holds_the_truth_and_is_of_recordings() -> None:
    """Two normal distributions; next to 1, where few clips are all in order, it is not empty."""
    rng = np.random.default_rng(0)
    listed = np.arange(108) < 8
    hits = 0
    for _ in range(300):
        score = rng.normal(size=108) + 2.66 * listed  # area 0.97
        low, high = auroc_interval(score, listed, [""] * 108)
        hits += low <= 0.97 <= high
    assert 282 <= hits <= 300
    low, high = auroc_interval(np.where(listed, 1.0, 0.0), listed, [""] * 108)
    assert 0.7 < low < 0.95 and high == 1.0
    # By hand: at the ends the distance is z times Hanley and McNeil's error of 8 and 100.
    score = rng.normal(size=108) + listed
    for end in auroc_interval(score, listed, [""] * 108):
        q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
        more = 108 / 2 - 1  # of both sides, as Newcombe has it
        error = (end * (1 - end) + more * (q1 - end**2) + more * (q2 - end**2)) / 800
        assert abs(end - auroc(score, listed)) == pytest.approx(1.96 * error**0.5, rel=1e-3)
    wide = auroc_interval(score, listed, [f"recording {max(at, 3)}" for at in range(108)])
    narrow = auroc_interval(score, listed, [""] * 108)
    assert wide.low < narrow.low and wide.high > narrow.high
    assert not auroc_interval(score, listed, ["one"] * 8 + [""] * 100).known

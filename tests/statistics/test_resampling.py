"""The bootstrap over clips, and the area under the ROC curve, held against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from palscope._statistics import auroc, mean_interval, resampled


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

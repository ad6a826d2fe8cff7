from __future__ import annotations

import numpy as np
import pytest

from palscope.evaluation.ranking import Asked, Ranking, rank


class Fixed:
    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def choice_logprobs(self, asked: list[Asked]) -> list[list[float]]:
        return self.rows

    def answer(self, asked: list[Asked]) -> list[str]:
        return [""] * len(asked)


ASKED = [Asked([np.zeros(10, np.float32)], "What?", ["dog", "rain"])]


def test_the_likeliest_choice_is_best() -> None:
    (ranking,) = rank(Fixed([[-3.0, -0.5]]), ASKED)
    assert ranking == Ranking(("dog", "rain"), (-3.0, -0.5))
    assert ranking.best == "rain"


@pytest.mark.parametrize("row", [[-1.0], [-1.0, float("nan")]])
def test_rows_that_do_not_fit_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match="expected 2 log-probabilities"):
        rank(Fixed([row]), ASKED)

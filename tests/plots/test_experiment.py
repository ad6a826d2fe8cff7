"""Figures of an experiment: each system is seen and named, also where two cost the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import Values
from palscope.plots import Caption
from palscope.plots._experiment import score_against_cost, scores_by_system
from tests.plots.reading import agree, named

CAPTION = Caption("an experiment", "all sets", 40)
SCORES = {"whole": 0.88, "frozen": 0.88, "alone": 0.5}


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "variant": name,
                "set": group,
                "n": 40,
                "seeds": 3,
                "score": score,
                "low": score - 0.1,
                "high": score + 0.05,
                "values": Values(),
                "seed_values": Values((score - 0.02, score, score + 0.02)),
                "step_ratio": None if name == "whole" else 1.0,
                "peak_ratio": 1.0,
            }
            for name, score in SCORES.items()
            for group in ("speech", "all")
        ]
    )


def test_systems_of_one_cost_and_score_are_each_named(table: pd.DataFrame) -> None:
    figure = score_against_cost(table, "peak_ratio", caption=CAPTION)
    points = named(figure)
    assert {name: point.y[0] for name, point in points.items()} == SCORES
    assert len({(each.look.slot, each.look.marker) for each in points.values()}) == 3
    (shown,) = agree(figure)
    ends = sorted(tuple(each) for each in shown["intervals"])
    assert ends[0] == pytest.approx((1, 0.4, 0.55)) and len(ends) == 3  # the table's


def test_a_system_without_the_cost_is_left_out(table: pd.DataFrame) -> None:
    points = named(score_against_cost(table, "step_ratio", caption=CAPTION))
    assert list(points) == ["frozen", "alone"]
    # What is left looks as where none is missing.
    whole = named(score_against_cost(table, "peak_ratio", caption=CAPTION))
    assert all(points[name].look == whole[name].look for name in points)


def test_a_panel_a_set_and_a_row_a_system(table: pd.DataFrame) -> None:
    figure = scores_by_system(table, caption=CAPTION)
    shown = agree(figure)
    assert [each["title"] for each in shown] == ["speech\n3 seeds", "all\n3 seeds"]
    assert shown[0]["ticks"][1] == tuple(reversed(SCORES))  # the first on top
    for panel in figure.panels:
        assert panel.counts == {40}  # a seed's score is one over as many clips
        seeds, scores = panel.marks
        assert scores.x == list(SCORES.values()) and list(scores.y) == [2, 1, 0]
        np.testing.assert_allclose(seeds.x[:3], [0.86, 0.88, 0.9])
        assert set(seeds.y[:3]) == {2}

"""Figures of an experiment: each system is seen and named, also where two cost the same."""

from typing import Any

import pandas as pd
import pytest

from palscope._statistics import Values
from palscope.plots._experiment import (
    score_against_cost,
    score_against_cost_paper,
    scores_by_system,
    scores_by_system_paper,
)

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


def test_systems_of_one_cost_and_score_are_each_named(table: pd.DataFrame):
    screen: Any = score_against_cost(table, "peak_ratio")
    assert {trace.name: trace.y[0] for trace in screen.data} == SCORES
    assert len({(trace.marker.color, trace.marker.symbol) for trace in screen.data}) == 3
    printed = score_against_cost_paper(table, "peak_ratio")
    assert [text.get_text() for text in printed.legends[0].get_texts()] == list(SCORES)


def test_a_system_without_the_cost_is_left_out(table: pd.DataFrame):
    screen: Any = score_against_cost(table, "step_ratio")
    assert [trace.name for trace in screen.data] == ["frozen", "alone"]
    # What is left looks as where none is missing.
    whole: Any = score_against_cost(table, "peak_ratio")
    assert [trace.marker for trace in screen.data] == [trace.marker for trace in whole.data[1:]]
    printed = score_against_cost_paper(table, "step_ratio")
    assert [text.get_text() for text in printed.legends[0].get_texts()] == ["frozen", "alone"]


def test_intervals_are_the_tables(table: pd.DataFrame):
    screen: Any = score_against_cost(table, "peak_ratio")
    for trace in screen.data:
        assert trace.error_y.array[0] == pytest.approx(0.05)
        assert trace.error_y.arrayminus[0] == pytest.approx(0.1)
    panel: Any = score_against_cost_paper(table, "peak_ratio").axes[0]
    ends = [bars.get_segments()[0][:, 1].tolist() for _, _, (bars,) in panel.containers]
    assert ends == [pytest.approx([score - 0.1, score + 0.05]) for score in SCORES.values()]


def test_a_panel_a_set_and_a_row_a_system(table: pd.DataFrame):
    screen: Any = scores_by_system(table)
    assert [note.text for note in screen.layout.annotations] == [
        "speech<br>n 40, 3 seeds",
        "all<br>n 40, 3 seeds",
    ]
    panels: Any = scores_by_system_paper(table).axes
    for panel in panels:
        (dots,) = (bars.lines[0] for bars in panel.containers)
        assert dots.get_xdata().tolist() == list(SCORES.values())
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(SCORES)

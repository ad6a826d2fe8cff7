"""Masking's figures draw the accuracies and their intervals, in per cent."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from palscope.plots import _masking as figures

masking: Any = figures


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        {
            "domain": domain,
            "way": way,
            "masked": masked,
            "n": 12,
            "accuracy": 0.9 - 0.3 * place - (0.1 if way == "reroute" else 0),
            "low": 0.05,
            "high": 0.95,
            "chance": 0.1 if domain != "music" else 1 / 12,
        }
        for domain in ("sound", "music", "all")
        for way in ("knockout", "reroute")
        for place, masked in enumerate(("nothing", "frames", "summary"))
    ]
    return pd.DataFrame(rows)


def test_bars_are_accuracies_with_their_intervals(scores: Any) -> None:
    screen = masking.accuracy_by_domain(scores)
    bars = {(bar.name, bar.xaxis): bar for bar in screen.data}
    assert len(bars) == 6
    frames = bars["frames masked", "x"]
    assert list(frames.y) == pytest.approx([60, 60, 60])
    assert list(bars["frames masked", "x2"].y) == pytest.approx([50, 50, 50])
    assert list(frames.error_y.array) == pytest.approx([35] * 3)
    assert list(frames.error_y.arrayminus) == pytest.approx([55] * 3)
    assert sum(bool(bar.showlegend) for bar in screen.data) == 3
    assert screen.layout.yaxis.title.text == "accuracy (%)"
    assert list(screen.layout.xaxis.ticktext) == [
        "sound<br>12 clips",
        "music<br>12 clips",
        "all domains<br>12 clips",
    ]
    chance = [shape.y0 for shape in screen.layout.shapes]
    assert chance == pytest.approx([10, 100 / 12, 10] * 2)
    # No two bars of a panel stand in one place.
    places = [x for (_, panel), bar in bars.items() if panel == "x" for x in bar.x]
    assert len(set(places)) == 9


def test_the_print_shows_the_same(scores: Any) -> None:
    figure = masking.accuracy_by_domain_paper(scores)
    knocked, rerouted = figure.axes
    assert [round(bar.get_height()) for bar in knocked.patches] == [90] * 3 + [60] * 3 + [30] * 3
    assert [round(bar.get_height()) for bar in rerouted.patches] == [80] * 3 + [50] * 3 + [20] * 3
    assert knocked.get_ylabel() == "accuracy (%)"
    assert "knockout" in knocked.get_title() and "reroute" in rerouted.get_title()
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(named) == {"nothing masked", "frames masked", "summary masked", "chance"}


def test_one_way_has_one_panel(scores: Any) -> None:
    one = scores[scores["way"] == "reroute"]
    assert len(masking.accuracy_by_domain_paper(one).axes) == 1
    assert len(masking.accuracy_by_domain(one).data) == 3

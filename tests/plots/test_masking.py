"""Masking's figure shows the accuracies and their intervals, in per cent."""

from __future__ import annotations

import pandas as pd
import pytest

from palscope.plots import Caption
from palscope.plots import _masking as figures
from tests.plots.reading import agree, named

CAPTION = Caption("pal", "2 questions", 24)


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        {
            "domain": domain,
            "way": way,
            "masked": masked,
            "n": 24 if domain == "all" else 12,
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


def test_bars_are_accuracies_with_their_intervals(scores: pd.DataFrame) -> None:
    figure = figures.accuracy_by_domain(scores, caption=CAPTION)
    knocked, rerouted = figure.panels
    assert "knockout" in knocked.title and "reroute" in rerouted.title
    bars = named(figure)
    assert bars.pop("chance").ends == pytest.approx((1.55, 2.45))  # of the last domain
    assert list(bars) == ["nothing masked", "frames masked", "summary masked"]
    assert list(bars["frames masked"].y) == pytest.approx([60] * 3)
    assert list(named(figure, 1)["frames masked"].y) == pytest.approx([50] * 3)
    sure = bars["frames masked"].spread
    assert sure is not None and (sure.low[0], sure.high[0]) == pytest.approx((5, 95))
    assert knocked.y.label == "accuracy (%)"
    assert knocked.x.categories == ("sound\nn 12", "music\nn 12", "all domains\nn 24")
    assert figure.lines() == ["pal · 2 questions · 24 clips (n 12 to 24 at a point)"]
    slots = {name: bar.look.slot for name, bar in bars.items()}
    assert list(slots.values()) == ["grey", "frames", "summary"]  # as everywhere
    assert len({bar.look.hatch for bar in bars.values()}) == 3
    rules = [mark for mark in knocked.marks if isinstance(mark, figures.Rule)]
    assert [rule.at for rule in rules] == pytest.approx([10, 100 / 12, 10])
    assert rules[1].ends == pytest.approx((0.55, 1.45))
    assert figure.data is scores and scores["accuracy"].max() < 1
    agree(figure)


def test_one_way_has_one_panel(scores: pd.DataFrame) -> None:
    one = scores[scores["way"] == "reroute"]
    (panel,) = figures.accuracy_by_domain(one, caption=CAPTION).panels
    assert panel.title == figures.TITLES["reroute"]

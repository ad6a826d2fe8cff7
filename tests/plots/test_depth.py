"""Figures of accuracy by depth and cost show each point of the table, with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._routing.depths import NO_AUDIO
from palscope.plots import Caption, Figure, Line, Points
from palscope.plots._depth import accuracy_against
from tests.plots.reading import agree, named


@pytest.fixture
def table() -> pd.DataFrame:
    rows = []
    for domain, shift in (("sound", 0.0), ("speech", 0.1)):
        for family, layers in (("first", (5, 1, 3)), ("last", (2,)), (NO_AUDIO, (0,))):
            for at in layers:
                accuracy = 0.1 * at + shift + 0.1
                rows.append((domain, family, f"{family} {at}", at, accuracy))
    made = pd.DataFrame(rows, columns=["domain", "family", "placement", "layers", "accuracy"])
    made = made.assign(model="lal", n=20, chance=0.05, low=made["accuracy"] - 0.03)
    made["high"] = made["accuracy"] + 0.07
    made["first_layer"] = made["layers"]
    made["prefill_ratio"] = made["cache_ratio"] = 1 + made["layers"] / 10
    made["prefill_ratio_low"] = made["prefill_ratio"] - 0.02
    return made.assign(prefill_ratio_high=made["prefill_ratio"] + 0.05)


def against(table: pd.DataFrame, x: Any = "layers") -> Figure:
    return accuracy_against(table, x, caption=Caption("lal", "which label?", 20))


def test_points_stand_in_order_with_their_intervals(table: pd.DataFrame) -> None:
    figure = against(table)
    shown = agree(figure)
    assert [each["title"] for each in shown] == ["lal\nsound", "lal\nspeech"]
    assert (shown[0]["x"], shown[0]["y"]) == ("layers with audio", "accuracy")
    for place, shift in enumerate((0.0, 0.1)):
        line = named(figure, place)["first"]
        assert isinstance(line, Line) and list(line.x) == [1, 3, 5]
        np.testing.assert_allclose(line.y, [0.2 + shift, 0.4 + shift, 0.6 + shift])
        np.testing.assert_allclose(line.spread.high - line.y, 0.07)
        np.testing.assert_allclose(line.y - line.spread.low, 0.03)
        assert line.hover == ("first 1", "first 3", "first 5")


def test_chance_and_the_control_are_lines_to_compare_with(table: pd.DataFrame) -> None:
    marks = named(against(table), 1)
    assert list(marks) == ["chance", NO_AUDIO, "first", "last"]
    assert marks["chance"].at == 0.05 and marks[NO_AUDIO].at == pytest.approx(0.2)
    assert NO_AUDIO not in named(against(table[table["family"] != NO_AUDIO]))


def test_costs_are_points_with_quartiles(table: pd.DataFrame) -> None:
    figure = against(table, "prefill_ratio")
    points = named(figure)["first"]
    assert isinstance(points, Points) and list(points.x) == [1.1, 1.3, 1.5]
    np.testing.assert_allclose(points.x_spread.high, [1.15, 1.35, 1.55])
    np.testing.assert_allclose(points.x_spread.low, [1.08, 1.28, 1.48])
    agree(figure)
    assert named(against(table, "cache_ratio"))["first"].x_spread is None


def test_many_families_do_not_look_alike(table: pd.DataFrame) -> None:
    rows = table[(table["family"] == "last") & (table["domain"] == "sound")]
    many = named(against(pd.concat([rows.assign(family=f"sweep {at}") for at in range(12)])))
    seen = {(mark.look.slot, mark.look.marker) for mark in many.values() if mark.look.marker}
    assert len(seen) == 12

"""Figures of accuracy by depth and cost show each point of the table, with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._routing.depths import NO_AUDIO
from palscope.plots import _depth as depth


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


def trace(figure: Any, name: str, place: int) -> Any:
    return [each for each in figure.data if each.name == name][place]


def test_points_stand_in_order_with_their_intervals(table: pd.DataFrame) -> None:
    figure = depth.accuracy_against(table, "layers")
    for place, shift in enumerate((0.0, 0.1)):
        line = trace(figure, "first", place)
        assert list(line.x) == [1, 3, 5]
        np.testing.assert_allclose(line.y, [0.2 + shift, 0.4 + shift, 0.6 + shift])
        np.testing.assert_allclose(line.error_y.array, 0.07)
        np.testing.assert_allclose(line.error_y.arrayminus, 0.03)
        assert list(line.text) == ["first 1", "first 3", "first 5"]
        assert "lines" in line.mode and line.error_x.array is None


def test_chance_and_the_control_are_lines_to_compare_with(table: pd.DataFrame) -> None:
    figure: Any = depth.accuracy_against(table, "layers")
    assert set(trace(figure, "chance", 0).y) == {0.05}
    np.testing.assert_allclose(trace(figure, NO_AUDIO, 1).y, 0.2)
    marked = [each.name for each in figure.data if "markers" in each.mode]
    assert sorted(set(marked)) == ["first", "last"]
    without: Any = depth.accuracy_against(table[table["family"] != NO_AUDIO], "layers")
    assert NO_AUDIO not in [each.name for each in without.data]


def test_costs_are_points_with_quartiles(table: pd.DataFrame) -> None:
    points = trace(depth.accuracy_against(table, "prefill_ratio"), "first", 0)
    assert points.mode == "markers" and list(points.x) == [1.1, 1.3, 1.5]
    np.testing.assert_allclose(points.error_x.array, 0.05)
    np.testing.assert_allclose(points.error_x.arrayminus, 0.02)
    assert trace(depth.accuracy_against(table, "cache_ratio"), "first", 0).error_x.array is None


@pytest.mark.parametrize("x", depth.LABELS)
def test_print_shows_the_same(table: pd.DataFrame, x: Any) -> None:
    figure: Any = depth.accuracy_against_paper(table, x)
    assert [axis.get_title() for axis in figure.axes] == [
        "lal\nsound (20 clips)",
        "lal\nspeech (20 clips)",
    ]
    left = figure.axes[0]
    assert (left.get_xlabel(), left.get_ylabel()) == (depth.LABELS[x], "accuracy")
    line = next(box for box in left.containers if len(box.lines[0].get_xdata()) == 3).lines[0]
    points = table[(table["domain"] == "sound") & (table["family"] == "first")].sort_values(x)
    np.testing.assert_allclose(line.get_xdata(orig=False), points[x])
    np.testing.assert_allclose(line.get_ydata(orig=False), points["accuracy"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "chance",
        NO_AUDIO,
        "first",
        "last",
    ]


def test_families_differ_in_colour_and_shape(table: pd.DataFrame) -> None:
    figure = depth.accuracy_against(table, "layers")
    first, last = trace(figure, "first", 0).marker, trace(figure, "last", 0).marker
    assert first.color != last.color and first.symbol != last.symbol
    assert trace(figure, "first", 1).marker.color == first.color


def test_many_families_do_not_look_alike(table: pd.DataFrame) -> None:
    rows = table[(table["family"] == "last") & (table["domain"] == "sound")]
    many = pd.concat([rows.assign(family=f"sweep {number}") for number in range(12)])
    looks = [
        (each.marker.color, each.marker.symbol)
        for each in depth.accuracy_against(many, "layers").data
        if each.name.startswith("sweep")
    ]
    assert len(set(looks)) == len(looks) == 12

"""Figures that compare: panels where they belong, the tables' numbers in them, axes named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import Values
from palscope.plots import _comparison as figures

comparison: Any = figures


@pytest.fixture
def bands() -> pd.DataFrame:
    rows = []
    for model, pathways in (("lal", ["frames"]), ("pal", ["frames", "summary"])):
        for domain in ("speech", "music"):
            for number, pathway in enumerate(["text", *pathways]):
                for layer in range(3):
                    mean = 0.1 * layer + 0.01 * number + (0.001 if domain == "music" else 0)
                    band = {"n": 4, "mean": mean, "low": mean - 0.01, "high": mean + 0.02}
                    named = {"model": model, "domain": domain, "pathway": pathway, "layer": layer}
                    rows.append(named | band)
    return pd.DataFrame(rows)


def test_mass_by_depth_has_a_panel_a_model_and_domain(bands: pd.DataFrame) -> None:
    screen = comparison.mass_by_depth(bands)
    titles = [each.text for each in screen.layout.annotations]
    assert titles == [
        f"{model}, {domain}, 4 clips" for model in ("lal", "pal") for domain in ("speech", "music")
    ]
    lines = [trace for trace in screen.data if trace.mode == "lines+markers"]
    assert [line.name for line in lines] == ["frames"] * 2 + ["frames", "summary"] * 2
    assert [line.showlegend for line in lines] == [True, False, False, True, False, False]
    last = lines[-1]
    assert (last.xaxis, last.yaxis) == ("x4", "y4")
    np.testing.assert_allclose(last.y, [0.021, 0.121, 0.221])
    fill = next(t for t in screen.data if t.fill == "toself" and t.xaxis == "x4")
    assert max(fill.y) == pytest.approx(0.231)
    assert screen.layout.xaxis3.title.text == "layer"
    assert screen.layout.yaxis.title.text == "share of attention"


def test_mass_by_depth_for_print(bands: pd.DataFrame) -> None:
    axes = comparison.mass_by_depth_paper(bands).axes
    assert [axis.get_title() for axis in axes][3] == "pal, music, 4 clips"
    assert [len(axis.get_lines()) for axis in axes] == [1, 1, 2, 2]
    np.testing.assert_allclose(axes[3].get_lines()[1].get_ydata(), [0.021, 0.121, 0.221])
    assert all(len(axis.collections) == len(axis.get_lines()) for axis in axes)  # a band each
    assert (axes[2].get_xlabel(), axes[2].get_ylabel()) == ("layer", "share of attention")


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        ("layer", "10", "frames", 0.3),
        ("layer", "9", "frames", 0.2),
        ("layer", "9", "text", -0.2),
        ("layer", "10", "text", -0.3),
        ("pathway", "frames", "", 0.25),
        ("pathway", "text", "", -0.25),
    ]
    table = pd.DataFrame(rows, columns=["by", "at", "group", "difference"])
    low, high = table["difference"] - 0.1, table["difference"] + 0.1
    return table.assign(value="mass", n=3, low=low, high=high)


def test_differences_along_each_column(summary: pd.DataFrame) -> None:
    screen = comparison.differences(summary)
    frames, text, pathways = screen.data
    assert list(frames.x) == [9, 10] and list(frames.y) == [0.2, 0.3]  # numbers, not words
    np.testing.assert_allclose(text.error_y.array, [0.1, 0.1])
    assert list(pathways.x) == ["frames", "text"] and pathways.mode == "markers"
    assert screen.layout.xaxis.title.text == "layer"
    assert screen.layout.xaxis2.title.text == "pathway"
    assert screen.layout.yaxis.title.text == "mass, B less A"
    axes = comparison.differences_paper(summary).axes
    assert [axis.get_xlabel() for axis in axes] == ["layer", "pathway"]
    assert axes[0].get_ylabel() == "mass, B less A"
    assert list(axes[0].get_lines()[0].get_xdata()) == [9, 10]
    assert list(axes[0].get_lines()[0].get_ydata()) == [0.2, 0.3]


def test_differences_without_an_interval(summary: pd.DataFrame) -> None:
    alone = summary.assign(low=np.nan, high=np.nan, values=Values((0.0, 0.4)))
    line, values = comparison.differences(alone).data[:2]
    assert np.isnan(line.error_y.array).all()  # none, not one of no length
    assert list(values.x) == [9, 9, 10, 10] and list(values.y) == [0.0, 0.4] * 2
    drawn = comparison.differences_paper(alone)
    drawn.canvas.draw()
    assert any(list(line.get_ydata()) == [0.0, 0.4] * 2 for line in drawn.axes[0].get_lines())

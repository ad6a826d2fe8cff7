"""Figures that compare: panels where they belong, the tables' numbers in them, axes named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import Values
from palscope.plots import Caption, Points
from palscope.plots._comparison import differences, mass_by_depth
from tests.plots.reading import agree, named

CAPTION = Caption("lal and pal", "which label?", 4)


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
    figure = mass_by_depth(bands, caption=CAPTION)
    shown = agree(figure)
    assert [each["title"] for each in shown] == [
        f"{model}, {domain}" for model in ("lal", "pal") for domain in ("speech", "music")
    ]
    assert [list(named(figure, at)) for at in range(4)] == [["frames"]] * 2 + [
        ["frames", "summary"]
    ] * 2
    summary = named(figure, 3)["summary"]
    np.testing.assert_allclose(summary.y, [0.021, 0.121, 0.221])
    np.testing.assert_allclose(summary.spread.high, [0.041, 0.141, 0.241])
    assert (shown[2]["x"], shown[2]["y"]) == ("layer", "share of attention")
    assert len({each["limits"] for each in shown}) == 1


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        ("layer", "10", "frames", 0.3),
        ("layer", "9", "frames", 0.2),
        ("layer", "9", "text", -0.2),
        ("layer", "10", "text", -0.3),
        ("pathway", "frames", "", 0.25),
        ("pathway", "text", "", -0.25),
        ("all", "all", "", 0.0),
    ]
    table = pd.DataFrame(rows, columns=["by", "at", "group", "difference"])
    low, high = table["difference"] - 0.1, table["difference"] + 0.1
    return table.assign(value="mass", n=3, low=low, high=high)


def test_differences_along_each_column(summary: pd.DataFrame) -> None:
    figure = differences(summary, caption=CAPTION)
    layers, pathways = agree(figure)
    frames, text = named(figure)["frames"], named(figure)["text"]
    assert frames.x == [9, 10] and frames.y.tolist() == [0.2, 0.3]  # numbers, not words
    np.testing.assert_allclose(text.spread.high, [-0.1, -0.2])
    mean = named(figure, 1)["mean"]
    assert isinstance(mean, Points) and mean.x == ["frames", "text"]
    assert (layers["x"], layers["y"], pathways["x"]) == ("layer", "mass, B less A", "pathway")
    assert len(figure.panels) == 2  # what differs in all is no panel


def test_differences_without_an_interval(summary: pd.DataFrame) -> None:
    alone = summary.assign(low=np.nan, high=np.nan, values=Values((0.0, 0.4)))
    layers, _ = agree(differences(alone, caption=CAPTION))
    assert not layers["intervals"] and not layers["bands"]  # none, not one of no length
    assert any(np.array_equal(c, [[9, 9, 10, 10], [0, 0.4, 0, 0.4]]) for c in layers["curves"])

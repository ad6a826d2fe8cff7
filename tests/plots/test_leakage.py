"""Leakage's figures draw the table's numbers, on axes with names and units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope.plots import Caption, Span
from palscope.plots._leakage import leakage_over_time, leaked_by_depth
from tests.plots.reading import agree, named

CAPTION = Caption("pal", "a window of 0.2 s silenced", 4)

DEPTHS = [
    ("mel", -1, ""),
    ("encoder_block", 0, ""),
    ("connector_output", -1, "frames"),
    *(("audio_state", layer, "frames") for layer in range(8)),
    ("connector_output", -1, "summary"),
    ("resid_post", 0, "summary"),
]


@pytest.fixture
def bands() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"depth": depth, "site": site, "layer": layer, "stream": stream, "n": 4}
            | {"mean": 0.1 * depth, "low": 0.05 * depth, "high": 0.2 * depth}
            for depth, (site, layer, stream) in enumerate(DEPTHS)
        ]
    )


@pytest.fixture
def profile(bands: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([bands.assign(offset_s=offset) for offset in (-0.1, 0.0, 0.1)])


def test_a_panel_for_the_encoder_and_one_a_stream(profile: pd.DataFrame) -> None:
    figure = leakage_over_time(profile, 0.2, caption=CAPTION)
    shown = agree(figure)
    assert [each["title"] for each in shown] == ["encoder", "frames", "summary"]
    assert list(named(figure)) == ["mel", "encoder layer 0"]
    frames = named(figure, 1)
    assert len(frames) == 5  # of nine depths, first and last among them
    first, *_, last = frames
    assert (first, last) == ("frames: connector", "frames: layer 7")
    np.testing.assert_allclose(frames["frames: layer 7"].y, [1.0] * 3)
    np.testing.assert_allclose(frames["frames: layer 7"].x, [-0.1, 0, 0.1])
    assert len({line.look.colour() for line in frames.values()}) == 5
    assert Span(-0.1, 0.1) in figure.panels[2].marks
    assert shown[0]["x"] == "time from the window's middle (s)"
    assert shown[0]["y"] == "change, that inside the window = 1"


def test_leaked_share_up_to_the_connector_and_by_layer(bands: pd.DataFrame) -> None:
    figure = leaked_by_depth(bands, caption=CAPTION)
    left, right = agree(figure)
    (points,) = figure.panels[0].marks
    assert left["ticks"][0] == (
        "mel",
        "encoder layer 0",
        "frames: connector",
        "summary: connector",
    )
    np.testing.assert_allclose(points.y, [0, 0.1, 0.2, 1.1])
    lines = named(figure, 1)
    assert set(lines) == {"frames", "summary"}
    np.testing.assert_allclose(lines["frames"].x, range(8))
    np.testing.assert_allclose(lines["frames"].y, np.arange(3, 11) / 10)
    assert "outside the window" in left["y"] and right["x"] == "layer"

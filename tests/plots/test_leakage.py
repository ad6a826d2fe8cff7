"""Leakage's figures draw the table's numbers, on axes with names and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.plots import _leakage as figures

leakage: Any = figures

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
    screen = leakage.leakage_over_time(profile, 0.2)
    assert [note.text for note in screen.layout.annotations] == ["encoder", "frames", "summary"]
    lines = [trace for trace in screen.data if trace.name]
    assert [line.name for line in lines if line.legendgroup == "encoder"] == [
        "mel",
        "encoder layer 0",
    ]
    frames = [line for line in lines if line.legendgroup == "frames"]
    assert len(frames) == 5  # of nine depths, first and last among them
    assert (frames[0].name, frames[-1].name) == ("connector", "layer 7")
    np.testing.assert_allclose(frames[-1].y, [1.0] * 3)
    np.testing.assert_allclose(frames[-1].x, [-0.1, 0, 0.1])
    assert len({line.line.color for line in frames}) == 5
    assert (screen.layout.shapes[0].x0, screen.layout.shapes[0].x1) == (-0.1, 0.1)
    assert screen.layout.xaxis.title.text == "time from the window's middle (s)"
    axes = leakage.leakage_over_time_paper(profile, 0.2).axes
    np.testing.assert_allclose(axes[1].get_lines()[-1].get_ydata(), [1.0] * 3)
    assert axes[0].get_ylabel() == "change, that inside the window = 1"
    assert axes[2].get_xlabel() == "time from the window's middle (s)"


def test_leaked_share_up_to_the_connector_and_by_layer(bands: pd.DataFrame) -> None:
    screen = leakage.leaked_by_depth(bands)
    below = screen.data[0]
    assert list(below.x) == ["mel", "encoder layer 0", "connector frames", "connector summary"]
    np.testing.assert_allclose(below.y, [0, 0.1, 0.2, 1.1])
    lines = {trace.name: trace for trace in screen.data if trace.name}
    assert set(lines) == {"frames", "summary"}
    np.testing.assert_allclose(lines["frames"].x, range(8))
    np.testing.assert_allclose(lines["frames"].y, np.arange(3, 11) / 10)
    assert "outside the window" in screen.layout.yaxis.title.text
    left, right = leakage.leaked_by_depth_paper(bands).axes
    assert "outside the window" in left.get_ylabel()
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), np.arange(3, 11) / 10)
    assert right.get_xlabel() == "layer"

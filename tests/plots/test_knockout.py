"""Knockout's figures draw the effects, on axes with names and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.plots import _knockout as figures

knockout: Any = figures
WINDOWS = ((0, 1), (2, 3), (0, 3))


@pytest.fixture
def effects() -> pd.DataFrame:
    """Two groups; all layers' effect is -9; the second window of frames is the strongest."""
    rows = [
        {
            "group": group,
            "queries": queries,
            "pathway": pathway,
            "first_layer": first,
            "last_layer": last,
            "effect": -9.0 if last - first == 3 else -float(first) - place,
            "low": -10.0,
            "high": 0.5,
            "n": 7 if group == "sound" else 1,
        }
        for group in ("sound", "music")
        for place, (queries, pathway) in enumerate(
            (
                ("text", "frames"),
                ("text", "summary"),
                ("text", "all audio"),
                ("text", "text"),
                ("last", "frames"),
                ("summary", "frames"),
                ("summary", "summary"),
            )
        )
        for first, last in WINDOWS
    ]
    return pd.DataFrame(rows)


def test_lines_are_the_effects_of_the_sliding_windows(effects: Any) -> None:
    screen = knockout.effect_by_depth(effects)
    lines = [trace for trace in screen.data if trace.name]
    assert {line.name for line in lines} == {
        "frames",
        "summary",
        "all audio",
        "text (control)",
        "summary → frames",
        "summary → summary",
    }
    assert len(lines) == 14  # seven a group
    for line in lines:
        assert list(line.x) == [0.5, 2.5]
    summary = next(line for line in lines if line.name == "summary")
    assert list(summary.y) == [-1, -3]
    shown = [line.name for line in lines if line.showlegend]
    assert len(shown) == len(set(shown)) == 6
    levels = [shape for shape in screen.layout.shapes if shape.line.dash == "dot"]
    assert len(levels) == 14 and {shape.y0 for shape in levels} == {-9}
    titles = [note.text for note in screen.layout.annotations]
    assert titles[:2] == ["all text reads<br>sound, 7 clips", "all text reads<br>music, 1 clip"]
    assert screen.layout.yaxis.title.text == "change of the answer's<br>log-probability (nats)"
    assert "layers" in screen.layout.xaxis5.title.text
    fills = [trace for trace in screen.data if trace.fill == "toself"]
    assert len(fills) == 14 and max(fills[0].y) == 0.5 and min(fills[0].y) == -10


def test_the_print_shows_the_same(effects: Any) -> None:
    figure = knockout.effect_by_depth_paper(effects, "flipped")
    assert len(figure.axes) == 6
    first = figure.axes[0]
    assert first.get_ylabel() == "share of answers\nthat change"
    assert "layers" in figure.axes[-1].get_xlabel()
    assert first.get_title() == "all text reads\nsound, 7 clips"
    drawn = [line for line in first.get_lines() if len(line.get_xdata()) == 2]
    frames = next(line for line in drawn if list(line.get_ydata()) == [0, -2])
    assert list(frames.get_xdata()) == [0.5, 2.5]
    levels = [line for line in first.get_lines() if line.get_linestyle() == ":"]
    assert [set(line.get_ydata()) for line in levels] == [{-9}] * 4
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "summary → frames" in named and named[-1] == "dotted: cut in all layers"


def test_windows_of_one_width_have_no_level(effects: Any) -> None:
    sliding = effects[effects["last_layer"] - effects["first_layer"] == 1]
    assert not knockout.effect_by_depth(sliding).layout.shapes


@pytest.fixture
def segments() -> pd.DataFrame:
    rows = [
        {"segment": name, "first_layer": float(first), "last_layer": float(last), "effect": value}
        for name, values in (("second", [-1, -2, -6]), ("first", [0, 3, 4]))
        for (first, last), value in zip(WINDOWS, values, strict=True)
    ]
    return (
        pd.DataFrame(rows)
        .sample(frac=1, random_state=1)
        .sort_values("segment", ascending=False, kind="stable")
    )


def test_stretches_stand_in_their_order_and_windows_bottom_first(segments: Any) -> None:
    (heat,) = knockout.segments_by_depth(segments).data
    np.testing.assert_array_equal(heat.z, [[-1, -2, -6], [0, 3, 4]])
    assert list(heat.y) == ["second", "first"]
    assert list(heat.x) == ["0 to 1", "2 to 3", "0 to 3"]
    assert (heat.zmin, heat.zmax) == (-6, 6)
    figure = knockout.segments_by_depth_paper(segments)
    axes, bar = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), [[-1, -2, -6], [0, 3, 4]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["second", "first"]
    assert axes.get_xlabel() == "layers that are cut"
    assert "nats" in bar.get_ylabel()

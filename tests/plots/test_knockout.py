"""Knockout's figures show the effects, on axes with names and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.plots import Caption, Line, Panel, Rule
from palscope.plots import _knockout as figures
from tests.plots.reading import agree, colour_ends

CAPTION = Caption("pal", "2 questions", 8)
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


def lines_of(panel: Panel) -> dict[str, Line]:
    return {mark.name: mark for mark in panel.marks if isinstance(mark, Line)}


def test_lines_are_the_effects_of_the_sliding_windows(effects: pd.DataFrame) -> None:
    figure = figures.effect_by_depth(effects, caption=CAPTION)
    panels = {(panel.row, panel.column): panel for panel in figure.panels}
    assert [list(lines_of(panels[row, 0])) for row in range(3)] == [
        ["all audio", "frames", "summary", "text (control)"],
        ["frames"],
        ["summary → frames", "summary → summary"],
    ]
    text = panels[0, 0]
    lines = lines_of(text)
    summary = lines["summary"]
    assert summary.x == [0.5, 2.5] and list(summary.y) == [-1, -3]
    assert summary.hover == ("layers 0 to 1", "layers 2 to 3") and summary.bands
    levels = [mark for mark in text.marks if isinstance(mark, Rule) and mark.look.dash == "dot"]
    assert [level.at for level in levels] == [-9] * 4
    assert {level.look.slot for level in levels} == {line.look.slot for line in lines.values()}
    assert [panels[row, 0].y.label for row in range(3)] == [
        f"{reader}\nchange of the answer's log-probability (nats)"
        for reader in ("all text reads", "the last token reads", "sound reads")
    ]
    assert [figure.title(panels[0, column]) for column in (0, 1)] == ["sound, n 7", "music, n 1"]
    assert "n 1 to 7" in figure.lines()[0] and figure.note == "Dotted: cut in all layers."
    agree(figure)


def test_streams_keep_their_colours_and_what_is_odd_is_dashed(effects: pd.DataFrame) -> None:
    panels = figures.effect_by_depth(effects, caption=CAPTION).panels
    looks = {name: line.look for panel in panels for name, line in lines_of(panel).items()}
    told = {name: (look.slot, look.dash) for name, look in looks.items()}
    assert told == {
        "frames": ("frames", "solid"),
        "summary": ("summary", "solid"),
        "all audio": ("green", "solid"),
        "text (control)": ("text", "dash"),
        "summary → frames": ("frames", "dash"),
        "summary → summary": ("summary", "solid"),
    }


def test_a_line_breaks_at_a_window_that_was_not_cut(effects: pd.DataFrame) -> None:
    more = pd.concat(
        [effects, effects[effects["first_layer"] == 2].assign(first_layer=4, last_layer=5)]
    )
    gap = more[~((more["pathway"] == "frames") & more["first_layer"].eq(2))]
    lines = lines_of(figures.effect_by_depth(gap, "flipped", caption=CAPTION).panels[0])
    assert lines["frames"].order == [0, None, 2] and lines["summary"].order == [0, 1, 2]


def test_windows_of_one_width_have_no_level(effects: pd.DataFrame) -> None:
    sliding = effects[effects["last_layer"] - effects["first_layer"] == 1]
    figure = figures.effect_by_depth(sliding, "flipped", caption=CAPTION)
    rules = [mark for panel in figure.panels for mark in panel.marks if isinstance(mark, Rule)]
    assert {rule.at for rule in rules} == {0} and not figure.note
    assert figure.panels[0].y.label == "all text reads\nshare of answers that change"


@pytest.fixture
def segments() -> pd.DataFrame:
    rows = [
        {"segment": name, "first_layer": float(first), "last_layer": float(last), "effect": value}
        for name, values in (("second", [-1, -2, -6]), ("first", [0, 3, 4]))
        for (first, last), value in zip(WINDOWS, values, strict=True)
    ]
    return (
        pd.DataFrame(rows)
        .assign(n=4)
        .sample(frac=1, random_state=1)
        .sort_values("segment", ascending=False, kind="stable")
    )


def test_stretches_stand_downwards_in_their_order_and_windows_rightwards(segments: Any) -> None:
    (panel,) = figures.segments_by_depth(segments, caption=CAPTION).panels
    figure = figures.segments_by_depth(segments, caption=CAPTION)
    (shown,) = agree(figure)
    np.testing.assert_array_equal(shown["heats"][0], [[0, 3, 4], [-1, -2, -6]])
    assert panel.y.categories == ("first", "second")  # upwards
    assert panel.x.categories == ("0 to 1", "2 to 3", "0 to 3")
    assert colour_ends(figure) == {"change of the answer's log-probability (nats)": (-6, 6)}
    assert panel.x.title == "layers that are cut" and panel.counts == {4}

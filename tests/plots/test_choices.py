"""Figures of candidate answers draw the table's log-probabilities, each where it belongs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from palscope._routing.depths import NO_AUDIO
from palscope.plots import _choices as figures
from palscope.plots._choices import OTHER, REST, RIGHT, WITHOUT

choices: Any = figures

CLIPS = ("clean clip", "corrupt clip")
ROLES = {"one": RIGHT, "two": OTHER, "six": REST, "ten": REST}


def made(panels: dict[str, tuple[Any, ...]], own: Any) -> pd.DataFrame:
    rows = [
        {
            "clip": clip,
            "panel": panel,
            "axis": f"axis of {panel}",
            "x": x,
            "choice": choice,
            "role": role,
            "logprob": -10.0 * at - place - 0.1 * number - 0.01 * list(ROLES).index(choice),
            "own": x == own and panel != NO_AUDIO,
        }
        for at, clip in enumerate(CLIPS)
        for place, (panel, xs) in enumerate(panels.items())
        for number, x in enumerate(xs)
        for choice, role in ROLES.items()
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def depths() -> pd.DataFrame:
    """Unsorted, as placements come; one panel more is the control."""
    return made({"first layers": (10, 3, 30), "upwards": (30, 1), NO_AUDIO: (0,)}, own=30)


@pytest.fixture
def masked() -> pd.DataFrame:
    return made({"knockout": ("nothing", "frames")}, own="nothing")


def drawn(screen: Any, name: str) -> list[Any]:
    return [trace for trace in screen.data if trace.name == name]


def test_lines_go_up_in_depth_and_hold_the_table(depths: Any) -> None:
    screen = choices.choices_against(depths)
    right = drawn(screen, RIGHT)
    assert [list(trace.x) for trace in right] == [[3, 10, 30], [1, 30]] * 2
    assert list(right[0].y) == pytest.approx([-0.1, 0, -0.2])
    assert list(right[3].y) == pytest.approx([-11.1, -11])
    assert {trace.mode for trace in right} == {"lines+markers"}
    assert [trace.xaxis for trace in right] == ["x", "x2", "x3", "x4"]
    assert len(drawn(screen, OTHER)) == 4 and len(drawn(screen, REST)) == 8
    assert set(drawn(screen, OTHER)[0].customdata) == {"two"}
    # What matters lies on top: the grey ones are drawn first.
    order = [trace.name for trace in screen.data if trace.name in (RIGHT, OTHER, REST)]
    assert order == [REST] * 8 + [OTHER] * 4 + [RIGHT] * 4
    assert [trace.name for trace in screen.data if trace.showlegend] == [REST, OTHER, RIGHT]


def test_the_own_route_has_a_star_for_both_answers(depths: Any) -> None:
    stars = [t for t in choices.choices_against(depths).data if t.marker.symbol == "star"]
    assert [list(star.x) for star in stars] == [[30]] * 8
    assert sorted(round(float(star.y[0]), 2) for star in stars[:4]) == [
        -11.01,
        -10.21,
        -1.01,
        -0.21,
    ]


def test_without_audio_is_a_line_through_every_panel_of_its_clip(depths: Any) -> None:
    shapes = choices.choices_against(depths).layout.shapes
    assert [shape.y0 for shape in shapes] == pytest.approx([-2, -2, -12, -12])
    assert [shape.yref for shape in shapes] == ["y", "y2", "y3", "y4"]
    assert [shape.name for shape in shapes if shape.showlegend] == [WITHOUT]
    assert NO_AUDIO not in [t.text for t in choices.choices_against(depths).layout.annotations]


def test_titles(depths: Any) -> None:
    layout = choices.choices_against(depths).layout
    assert [a.text for a in layout.annotations] == ["first layers", "upwards"]
    assert layout.xaxis3.title.text == "axis of first layers"
    assert layout.xaxis4.title.text == "axis of upwards"
    assert layout.yaxis.title.text == "clean clip<br>log-probability (nats)"


def test_what_has_names_is_not_joined(masked: Any) -> None:
    screen = choices.choices_against(masked)
    (right, _) = drawn(screen, RIGHT)
    assert list(right.x) == ["nothing", "frames"] and right.mode == "markers"
    assert not screen.layout.shapes
    axis = choices.choices_against_paper(masked).axes[0]
    assert {line.get_linestyle() for line in axis.lines} == {"None"}


def test_the_print_shows_the_same(depths: Any) -> None:
    figure = choices.choices_against_paper(depths)
    assert len(figure.axes) == 4
    clean, upwards, corrupt, _ = figure.axes
    lines = {
        (line.get_color(), line.get_marker()): line.get_xydata().round(2).tolist()
        for line in clean.lines
        if line.get_xydata().size
    }
    assert lines["#0072B2", "s"] == [[3, -0.1], [10, 0], [30, -0.2]]
    assert lines["#D55E00", "D"] == [[3, -0.11], [10, -0.01], [30, -0.21]]
    assert lines["#0072B2", "*"] == [[30, -0.2]]
    assert ("#B0B0B0", "*") not in lines
    assert [line[1] for line in lines["#555555", "None"]] == [-2, -2]
    assert clean.get_title() == "first layers" and upwards.get_title() == "upwards"
    assert corrupt.get_xlabel() == "axis of first layers" and not clean.get_xlabel()
    assert corrupt.get_ylabel() == "corrupt clip\nlog-probability (nats)"
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {RIGHT, OTHER, REST, WITHOUT}

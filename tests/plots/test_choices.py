"""The figure of candidate answers shows the table's log-probabilities, each where it belongs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from palscope._routing.depths import NO_AUDIO
from palscope.plots import Caption, Figure, Line, Points, Rule
from palscope.plots._choices import OTHER, REST, RIGHT, WITHOUT, choices_against

from .reading import agree

CAPTION = Caption("pal", "which digit?", 2)
CLIPS = ("clean clip", "corrupt clip")
ROLES = {"one": RIGHT, "two": OTHER, "six": REST, "ten": REST}


def made(panels: dict[str, tuple[Any, ...]], own: Any) -> Figure:
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
    return choices_against(pd.DataFrame(rows), caption=CAPTION)


@pytest.fixture(scope="module")
def depths() -> Figure:
    """Unsorted, as placements come; one panel more is the control."""
    return made({"first layers": (10, 3, 30), "upwards": (30, 1), NO_AUDIO: (0,)}, own=30)


def of(figure: Figure, kind: Any) -> list[list[Any]]:
    return [[mark for mark in panel.marks if isinstance(mark, kind)] for panel in figure.panels]


def test_lines_go_up_in_depth_and_what_matters_lies_on_top(depths: Figure) -> None:
    lines = of(depths, Line)
    assert [[line.name for line in panel] for panel in lines] == [[REST, REST, OTHER, RIGHT]] * 4
    assert [panel[-1].x for panel in lines] == [[3, 10, 30], [1, 30]] * 2
    assert list(lines[0][-1].y) == pytest.approx([-0.1, 0, -0.2])
    assert list(lines[3][-1].y) == pytest.approx([-11.1, -11])
    assert lines[0][2].hover == ("two, 3", "two, 10", "two, 30")
    assert list(depths.legend()) == [WITHOUT, REST, OTHER, RIGHT]
    agree(depths)


def test_the_own_route_has_a_star_for_both_answers(depths: Figure) -> None:
    stars = of(depths, Points)
    assert [[list(star.x) for star in panel] for panel in stars] == [[[30], [30]]] * 4
    assert {star.look.marker for panel in stars for star in panel} == {"star"}
    assert [float(star.y[0]) for star in stars[0]] == pytest.approx([-0.21, -0.2])
    assert depths.note == "Stars: the model's own route."


def test_without_audio_is_a_line_through_every_panel_of_its_clip(depths: Figure) -> None:
    rules = [rule for panel in of(depths, Rule) for rule in panel]
    assert [(rule.at, rule.name) for rule in rules] == [
        (pytest.approx(at), WITHOUT) for at in (-2, -2, -12, -12)
    ]


def test_titles(depths: Figure) -> None:
    assert [panel.title for panel in depths.panels] == ["first layers", "upwards", "", ""]
    assert [panel.x.title for panel in depths.panels[2:]] == [
        "axis of first layers",
        "axis of upwards",
    ]
    assert depths.panels[2].y.label == "corrupt clip\nlog-probability (nats)"


def test_what_has_names_is_not_joined() -> None:
    figure = made({"knockout": ("nothing", "frames")}, own=None)
    points = of(figure, Points)[0]
    assert points[-1].x == ["nothing", "frames"] and points[-1].name == RIGHT
    assert figure.panels[0].x.categories == ("nothing", "frames")
    assert not of(figure, Line)[0] and not of(figure, Rule)[0] and not figure.note
    agree(figure)


def test_stars_show_on_top_of_other_marks(depths: Figure) -> None:
    marks = [mark for mark in depths.panels[0].marks if isinstance(mark, Line | Points)]
    star, line = marks[-1], marks[-2]
    assert star.look.size > 1.5 * line.look.size and star.look.slot == line.look.slot

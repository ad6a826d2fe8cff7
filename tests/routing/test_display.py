"""The strip that a layout shows in a notebook."""

from __future__ import annotations

import re

from palscope._routing import FRAMES, SUMMARY, TokenLayout
from palscope._routing.display import colours
from palscope._routing.route import Stream
from tests.routing.test_layout import build, places

BLUE, ORANGE, GREY = (colours([])[name] for name in ("frames", "summary", "text"))


def titles(layout: TokenLayout) -> list[str]:
    return re.findall(r'title="([^"]*)"', layout._repr_html_())


def test_every_token_of_a_short_layout_has_a_cell_in_its_colour() -> None:
    html = build([[5, *places(4), 6]], [4])._repr_html_()
    cells = re.findall(r'title="(\w+)[^"]*" style="[^"]*background:(#\w+)', html)
    kinds = ["text", "frames", "frames", "frames", "summary", "frames", "summary", "text"]
    assert [kind for kind, _ in cells] == kinds
    assert {kind: colour for kind, colour in cells} == {
        "text": GREY,
        "frames": BLUE,
        "summary": ORANGE,
    }


def test_hovering_tells_place_and_seconds() -> None:
    layout = build([[5, *places(4), 6], [5]], [4])
    assert titles(layout)[:3] == [
        "text: column 0, position 0",
        "frames 0: clip 0, column 1, position 1, 0.00 to 0.10 s",
        "frames 1: clip 0, column 2, position 2, 0.10 to 0.20 s",
    ]
    assert titles(layout)[8:] == [f"padding, column {i}" for i in range(7)] + [
        "text: column 7, position 0"
    ]


def test_each_row_is_described_in_words_with_its_own_clips() -> None:
    layout = build([[5, 5, *places(4), 6], [5, *places(3), 6, *places(1)]], [4, 3, 1])
    html = layout._repr_html_()
    assert "row 0: 2 text, clip 0 (4 frames, 2 summary, 0.40 s), 1 text" in html
    assert (
        "clip 0 (3 frames, 1 summary, 0.30 s), 1 text, clip 1 (1 frames, 1 summary, 0.10 s)" in html
    )


def test_thousands_of_tokens_stay_light() -> None:
    layout = build([[5] * 40 + places(1500) + [6] * 30 + places(600) + [7]], [1500, 600])
    html = layout._repr_html_()
    assert len(html) < 5_000
    assert "frames × 1500" in html and "summary × 500" in html
    assert "frames: clip 1, columns 2070 to 2868, positions 2070 to 2868, 0.00 to 60.00 s" in html
    # As wide as they are many.
    assert re.findall(r"flex:(\d+) 1 0", html) == ["40", "2000", "30", "800", "1"]


def test_many_rows_are_counted_and_odd_names_are_escaped() -> None:
    assert "and 4 rows more" in build([[5]] * 20, [])._repr_html_()
    other = Stream("nights", 2)
    html = build([[5, *places(2, (FRAMES, other))]], [2], (FRAMES, other))._repr_html_()
    assert colours(["nights"])["nights"] in html and SUMMARY.name not in html

"""The lens's figures draw the table's numbers, on axes with names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.plots import _lens as figures

lens: Any = figures


@pytest.fixture
def bands() -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"domain": domain, "chance": chance, "place": place, "depth": depth, "n": 3}
            | {"mean": depth / 4, "low": depth / 8, "high": depth / 3}
            for domain, chance in (("sound", 0.1), ("speech", 0.2))
            for place in ("last token", "frames", "written by frames")
            for depth in range(3)
        ]
    )
    return table


def test_a_panel_a_domain_and_a_line_a_place(bands: pd.DataFrame) -> None:
    screen = lens.readable_by_depth(bands)
    lines = [trace for trace in screen.data if trace.name]
    assert [line.name for line in lines] == ["last token", "frames", "written by frames"] * 2
    assert [line.showlegend for line in lines] == [True] * 3 + [False] * 3
    np.testing.assert_allclose(lines[1].y, [0, 0.25, 0.5])
    assert lines[1].line.color == lines[2].line.color and lines[2].line.dash == "dash"
    assert lines[0].line.color != lines[1].line.color
    assert [shape.y0 for shape in screen.layout.shapes] == [0.1, 0.2]  # chance
    assert screen.layout.xaxis2.title.text == "layers passed"
    assert screen.layout.yaxis.title.text == "share in which the answer leads"
    figure = lens.readable_by_depth_paper(bands)
    left, right = figure.axes
    np.testing.assert_allclose(left.get_lines()[1].get_ydata(), [0, 0.25, 0.5])
    assert (left.get_title(), right.get_title()) == ("sound", "speech")
    assert right.get_xlabel() == "layers passed" and len(left.collections) == 3
    assert right.get_lines()[-1].get_ydata()[0] == 0.2
    assert "chance" in [text.get_text() for text in figure.legends[0].get_texts()]

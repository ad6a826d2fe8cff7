"""Maps to click on: every cell has a point, however the figure came."""

from __future__ import annotations

import pickle
from importlib import import_module
from typing import Any

import pandas as pd
import pytest

from palscope.plots import Caption
from palscope.plots._attention import layer_head_map

LAYERS, HEADS = 12, 9


CELLS = [
    {"row": 0, "query": 0, "layer": layer, "head": head, "pathway": "frames", "mass": 0.1}
    for layer in range(LAYERS)
    for head in range(HEADS)
]


def drawn_map(through: Any, *chosen: Any) -> Any:
    figure = layer_head_map(pd.DataFrame(CELLS), "frames", caption=Caption("m", "q", 1)).screen()
    return import_module("_figures").clickable(through(figure), *chosen)


@pytest.mark.parametrize(
    "through", [lambda figure: figure, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_every_cell_of_a_map_has_a_point(through: Any) -> None:
    drawn = drawn_map(through, (11, 4))
    points = drawn.data[-1].customdata
    assert {tuple(point) for point in points} == {(x["layer"], x["head"]) for x in CELLS}
    assert list(zip(drawn.data[-1].y, drawn.data[-1].x, strict=True)) == [tuple(p) for p in points]
    (framed,) = drawn.data[-1].selectedpoints
    assert tuple(points[framed]) == (11, 4)


def test_a_clicked_head_is_framed_by_the_browser_and_the_map_stays() -> None:
    maps = [drawn_map(lambda figure: figure, each, each) for each in ((11, 4), (2, 0))]
    assert maps[0].to_json() == maps[1].to_json()
    assert maps[0].data[-1].selectedpoints is None


def test_a_layer_or_a_head_alone_is_framed_across() -> None:
    layer, head = (
        drawn_map(lambda f: f, each).layout.shapes[-1] for each in ((3, None), (None, 3))
    )
    assert (layer.x0, layer.x1, layer.y0, layer.y1) == (-0.5, HEADS - 0.5, 2.5, 3.5)
    assert (head.x0, head.x1, head.y0, head.y1) == (2.5, 3.5, -0.5, LAYERS - 0.5)

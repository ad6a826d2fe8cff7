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


@pytest.mark.parametrize(
    "through", [lambda figure: figure, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_every_cell_of_a_map_has_a_point(through: Any) -> None:
    cells = [
        {"row": 0, "query": 0, "layer": layer, "head": head, "pathway": "frames", "mass": 0.1}
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]
    figure = layer_head_map(pd.DataFrame(cells), "frames", caption=Caption("m", "q", 1)).screen()
    drawn: Any = import_module("_figures").clickable(through(figure), (11, 4))
    points = drawn.data[-1].customdata
    assert {tuple(point) for point in points} == {(x["layer"], x["head"]) for x in cells}
    assert list(zip(drawn.data[-1].y, drawn.data[-1].x, strict=True)) == [tuple(p) for p in points]
    assert drawn.layout.shapes[-1].y1 == 11.5

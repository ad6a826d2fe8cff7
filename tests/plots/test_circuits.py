"""The figure of circuits by size, and panels that would hide each other."""

from __future__ import annotations

import pandas as pd
import pytest

from palscope.measures import mean_band
from palscope.plots import Caption, Figure, Panel
from palscope.plots._circuits import faithfulness_by_edges, faithfulness_by_size
from palscope.plots._grammar import Line
from tests.plots.reading import agree

CAPTION = Caption("a model", "digits", 2)


def test_both_orders_of_every_method_are_seen() -> None:
    rows = [
        {"method": method, "order": order, "share": share, "faithful": share - 0.001 * pair}
        for method in ("EAP", "random")
        for order in ("absolute", "signed")
        for share in (0.001, 0.1, 1.0)
        for pair in (0, 1)
    ]
    tables = [pd.DataFrame(rows[pair::2]) for pair in (0, 1)]
    by = ["method", "order", "share"]
    figure = faithfulness_by_size(mean_band(tables, by, value="faithful"), caption=CAPTION)
    agree(figure)
    assert [(panel.row, panel.column, len(panel.marks)) for panel in figure.panels] == [
        (0, 0, 2),
        (0, 1, 2),
    ]


def test_every_task_has_its_panel_three_in_a_row() -> None:
    rows = [
        {"kind": kind, "method": "EAP", "edges": edges, "faithful": 0.1 * number + edges / 200}
        for number, kind in enumerate(("digit", "sound", "instrument", "last_digit"))
        for edges in (100, 10)
    ]
    by = ["kind", "method", "edges"]
    figure = faithfulness_by_edges(
        mean_band([pd.DataFrame(rows)], by, value="faithful"), caption=CAPTION
    )
    agree(figure)
    assert [(panel.title, panel.row, panel.column) for panel in figure.panels] == [
        ("digit", 0, 0),
        ("instrument", 0, 1),
        ("last_digit", 0, 2),
        ("sound", 1, 0),
    ]
    (line,) = figure.panels[3].marks
    assert isinstance(line, Line)
    assert list(line.x) == pytest.approx([1, 2]) and list(line.y) == pytest.approx([0.15, 0.6])


def test_two_panels_in_one_place_are_refused() -> None:
    one: Panel = faithfulness_by_size(
        mean_band(
            [pd.DataFrame([{"method": "EAP", "order": "signed", "share": 1.0, "faithful": 1.0}])],
            ["method", "order", "share"],
            value="faithful",
        ),
        caption=CAPTION,
    ).panels[0]
    with pytest.raises(ValueError, match="one place"):
        Figure([one, one], CAPTION, pd.DataFrame())

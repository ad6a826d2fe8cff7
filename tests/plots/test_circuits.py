"""The figure of circuits by size, and panels that would hide each other."""

from __future__ import annotations

import pandas as pd
import pytest

from palscope.measures import mean_band
from palscope.plots import Caption, Figure, Panel
from palscope.plots._circuits import faithfulness_by_size
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

"""The dose curve and the figure of erasure show each number of the table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from palscope.plots import Caption, Line
from palscope.plots._erasure import decodable_and_used
from palscope.plots._steering import dose_curve
from tests.plots.reading import agree, named

CAPTION = Caption("demo/pal", "which digit?", 20)


def test_doses_stand_in_order_beside_a_random_direction() -> None:
    table = pd.DataFrame(
        {"what": what, "by": by, "dose": dose, "value": value + dose / 10, "n": 20}
        for what, value in (("rate", 0.1), ("log_odds", -3.0), ("elsewhere", 0.5), ("kl", 0.2))
        for by in ("direction", "random")
        for dose in (2.0, 0.0)
    ).assign(low=0.0, high=1.0)
    figure = dose_curve(table, "seven", 0.25, caption=CAPTION)
    shown = agree(figure)
    assert [each["title"] for each in shown] == [
        "other clips answered “seven”",
        "log-odds of “seven”, other clips",
        "other domains: right",
        "other domains: next token",
    ]
    line = named(figure, 0)["the direction"]
    assert isinstance(line, Line) and list(line.x) == [0, 2]
    np.testing.assert_allclose(line.y, [0.1, 0.3])
    assert "A dose of 1 is 0.25 of the rows' mean norm." in figure.note
    unknown = dose_curve(table, "seven", float("nan"), caption=CAPTION)
    assert "not known" in unknown.note


def test_what_is_decodable_stands_beside_what_is_used() -> None:
    table = pd.DataFrame(
        {"question": question, "of": of, "erased": erased, "accuracy": accuracy, "n": 20}
        for question in ("decodable", "used", "elsewhere")
        for of in ("speech", "sound")
        for erased, accuracy in (("nothing", 0.9), ("labels", 0.1), ("random", 0.8))
    ).assign(low=0.0, high=1.0)
    figure = decodable_and_used(table, caption=CAPTION)
    shown = agree(figure)
    assert [each["title"] for each in shown][:2] == [
        "decodable: a new probe",
        "used: the model's answer",
    ]
    bars = named(figure, 1)
    np.testing.assert_allclose(bars["what tells its labels apart"].y, [0.1, 0.1])
    assert list(bars["nothing is erased"].x) == ["speech", "sound"]

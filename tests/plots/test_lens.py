"""The lens's figures draw the table's numbers, on axes with names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope.plots import Caption
from palscope.plots._lens import readable_by_depth
from tests.plots.reading import agree, named


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
    figure = readable_by_depth(bands, caption=Caption("pal", "which label?", 3))
    left, right = agree(figure)
    lines = named(figure)
    assert list(lines) == ["chance", "last token", "frames", "written by frames"]
    np.testing.assert_allclose(lines["frames"].y, [0, 0.25, 0.5])
    np.testing.assert_allclose(lines["frames"].spread.high, [0, 1 / 3, 2 / 3])
    stream, written, last = (lines[n].look for n in ("frames", "written by frames", "last token"))
    assert stream.slot == written.slot != last.slot
    assert (stream.dash, written.dash) == ("solid", "dash")
    assert [named(figure, at)["chance"].at for at in (0, 1)] == [0.1, 0.2]
    assert (left["title"], right["title"]) == ("sound", "speech")
    assert (right["x"], left["y"]) == ("layers passed", "share in which the answer leads")

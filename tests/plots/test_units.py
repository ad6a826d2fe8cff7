"""Units over a clip: a row each, at their own seconds, above the clip's spectrogram."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from palscope.audio import Waveform
from palscope.plots import Caption, units_over_time


def test_each_unit_has_its_values_at_its_seconds() -> None:
    waveform = Waveform(np.random.default_rng(0).normal(size=8000).astype(np.float32), 16_000, "x")
    start = np.arange(25) * 0.02
    values = {"7: b": np.where(start > 0.3, 2.0, 0.0), "3: a": np.where(start < 0.1, 1.0, 0.0)}
    table = pd.concat(
        pd.DataFrame({"unit": unit, "start": start, "end": start + 0.02, "value": each})
        for unit, each in values.items()
    )
    figure = units_over_time(table, waveform, caption=Caption("m", "q", n=1))
    *rows, below = figure.panels
    assert [(each.title, each.row) for each in rows] == [("7: b", 0), ("3: a", 1)]
    assert below.row == 2 and all(each.x.limits == (0, 0.5) for each in figure.panels)
    for panel, (unit, each) in zip(rows, values.items(), strict=True):
        (steps,) = panel.marks
        drawn: Any = steps
        assert panel.title == unit
        assert list(drawn.y) == list(each) and list(drawn.start) == list(start)
    figure.screen()
    figure.print()

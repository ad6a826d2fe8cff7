"""What units do over a clip, above what is heard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from palscope.audio import Waveform
from palscope.plots._axes import TIME
from palscope.plots._cells import Spectrogram, frequency_axis
from palscope.plots._figure import Caption, Figure, Panel
from palscope.plots._grammar import Axis, Steps
from palscope.plots._spectrogram import mel_image

VALUE = Axis("value", limits=(0, None))


def units_over_time(table: pd.DataFrame, waveform: Waveform, *, caption: Caption) -> Figure:
    """Each unit's values over one clip's spectrogram, a row a unit.

    Args:
        table: one row a unit and token, in order of time: `unit`, as it is named in the figure,
            `start` and `end` (s), and `value`.
        waveform: the clip.
        caption: what the figure says of its numbers.
    """
    image = mel_image(waveform)
    time = replace(TIME, limits=(0, image.seconds))
    whole: Any = table
    panels = [
        Panel(
            [Steps(rows["start"], rows["end"], rows["value"])],
            time,
            VALUE,
            str(unit),
            row,
            height=0.5,
        )
        for row, (unit, rows) in enumerate(whole.groupby("unit", sort=False))
    ]
    below = Panel([Spectrogram(image)], time, frequency_axis(image), row=len(panels))
    return Figure([*panels, below], caption, table)

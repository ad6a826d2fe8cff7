"""The figure of what each head's reading of sound does to an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from palscope.audio import Waveform
from palscope.plots._axes import HEAD, LAYER, TIME
from palscope.plots._cells import Heat, Spectrogram, frequency_axis
from palscope.plots._figure import Caption, Figure, Mark, Panel
from palscope.plots._grammar import Axis, Points, Rule, Steps
from palscope.plots._looks import Look
from palscope.plots._spectrogram import mel_image

LEAD = "nats of the answer's lead"


def head_effects_map(table: pd.DataFrame, *, caption: Caption) -> Figure:
    """What cutting each head off from sound does to the answer: layers upwards, heads across.

    A dot marks a head that was cut for real; elsewhere the effect is the estimate. Layers that do
    not see the sound are blank.

    Args:
        table: of `palscope.measures.head_effects`.
        caption: what the figure says of its numbers.
    """
    told: Any = table.sort_values(by=["layer", "head"], ignore_index=True)
    told["change"] = told["effect"].fillna(told["estimate"])
    said = [_said(row) for row in told.itertuples()]
    heat = Heat.of(
        told,
        "head",
        "layer",
        "change",
        LEAD,
        signed=True,
        hover=np.array(said).reshape(told["layer"].nunique(), -1),
    )
    marks: list[Mark] = [heat]
    cut: Any = told[told["effect"].notna()]
    if len(cut):
        places: list[int] = cut.index.tolist()
        hover = tuple(said[place] for place in places)
        dots = Points(cut["head"], cut["layer"], 1, look=Look("orange", light=True), hover=hover)
        marks.append(dots)
    return Figure([Panel(marks, HEAD, LAYER, "dot: cut; else estimated")], caption, told)


def effects_over_time(table: pd.DataFrame, waveform: Waveform, *, caption: Caption) -> Figure:
    """What cutting each stretch of a clip does to the answer, above its log-mel spectrogram.

    Args:
        table: `start_s, end_s, change` of each stretch: seconds, and nats of the answer's lead.
        waveform: the clip.
        caption: what the figure says of its numbers.
    """
    image = mel_image(waveform)
    told: Any = table.sort_values(by="start_s", ignore_index=True)
    steps = Steps(told["start_s"], told["end_s"], told["change"], look=Look("ink", marker=""))
    time = replace(TIME, limits=(0, image.seconds))
    above = Panel([steps, Rule(0.0)], time, Axis(LEAD))
    below = Panel([Spectrogram(image)], time, frequency_axis(image), row=1)
    return Figure([above, below], caption, told)


def _said(row: Any) -> str:
    """A cell in words."""
    where = f"layer {row.layer}, head {row.head}"
    if row.mass != row.mass:
        return f"{where}: does not see it"
    cut = "not cut" if row.effect != row.effect else f"cut: {row.effect:+.2f} nats"
    return f"{where}: {cut}, estimated {row.estimate:+.2f}; gives it {100 * row.mass:.1f} %"

"""Figures: each one description, drawn for the screen (plotly) and for print (matplotlib).

`Figure.screen`, `Figure.print` and `Figure.save` draw it. A figure of your own is put together from
the same parts: `Figure` of `Panel` of marks on an `Axis`, with its `Caption`.
"""

from palscope.plots._attention import (
    head_thumbnails,
    layer_head_map,
    mass_by_layer,
    mass_over_time,
    time_over_spectrogram,
)
from palscope.plots._cells import Heat, Spectrogram
from palscope.plots._circuit import circuit
from palscope.plots._effects import head_effects_map
from palscope.plots._figure import Caption, Figure, Panel, shared_scale
from palscope.plots._grammar import Axis, Bars, Line, Points, Rule, Span, Spread, Steps
from palscope.plots._looks import Look
from palscope.plots._units import units_over_time

__all__ = [
    "Axis",
    "Bars",
    "Caption",
    "Figure",
    "Heat",
    "Line",
    "Look",
    "Panel",
    "Points",
    "Rule",
    "Span",
    "Spectrogram",
    "Spread",
    "Steps",
    "circuit",
    "head_effects_map",
    "head_thumbnails",
    "layer_head_map",
    "mass_by_layer",
    "mass_over_time",
    "shared_scale",
    "time_over_spectrogram",
    "units_over_time",
]

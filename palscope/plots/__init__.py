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
from palscope.plots._cells import Heat, Spectrogram, frequency_axis
from palscope.plots._comparison import differences, mass_by_depth
from palscope.plots._depth import accuracy_against
from palscope.plots._experiment import score_against_cost, scores_by_system
from palscope.plots._figure import Caption, Figure, Panel, shared_scale
from palscope.plots._grammar import Axis, Bars, Line, Points, Rule, Span, Spread, Steps
from palscope.plots._leakage import leakage_over_time, leaked_by_depth
from palscope.plots._lens import readable_by_depth
from palscope.plots._looks import Look, looks
from palscope.plots._profile import profiles
from palscope.plots._tokens import token_strip

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
    "accuracy_against",
    "differences",
    "frequency_axis",
    "head_thumbnails",
    "layer_head_map",
    "leakage_over_time",
    "leaked_by_depth",
    "looks",
    "mass_by_depth",
    "mass_by_layer",
    "mass_over_time",
    "profiles",
    "readable_by_depth",
    "score_against_cost",
    "scores_by_system",
    "shared_scale",
    "time_over_spectrogram",
    "token_strip",
]

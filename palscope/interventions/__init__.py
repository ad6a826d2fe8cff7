"""Interventions: changes of a run, addressed in seconds, streams, layers and heads."""

from __future__ import annotations

from palscope.interventions._address import Address, Filler, Sound, Text
from palscope.interventions._apply import Patch, Reroute, intervene
from palscope.interventions._capture import capture
from palscope.interventions._cells import run_cells
from palscope.interventions._changes import Add, Change, Mean, Noise, Resample, Scale, Zero
from palscope.interventions._knockout import Knockout
from palscope.interventions._resolve import resolve
from palscope.interventions._waveform import edit_waveform

__all__ = [
    "Add",
    "Address",
    "Change",
    "Filler",
    "Knockout",
    "Mean",
    "Noise",
    "Patch",
    "Reroute",
    "Resample",
    "Scale",
    "Sound",
    "Text",
    "Zero",
    "capture",
    "edit_waveform",
    "intervene",
    "resolve",
    "run_cells",
]

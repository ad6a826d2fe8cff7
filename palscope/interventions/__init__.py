"""Interventions: changes of a run, addressed in seconds, streams, layers and heads."""

from palscope.interventions._address import SITES, Address, Filler, Site, Sound, Text
from palscope.interventions._apply import Intervention, Patch, Reroute, intervene
from palscope.interventions._capture import Captured, capture
from palscope.interventions._changes import Add, Change, Mean, Noise, Resample, Scale, Zero
from palscope.interventions._knockout import Knockout
from palscope.interventions._resolve import Resolved, resolve
from palscope.interventions._waveform import edit_waveform

__all__ = [
    "SITES",
    "Add",
    "Address",
    "Captured",
    "Change",
    "Filler",
    "Intervention",
    "Knockout",
    "Mean",
    "Noise",
    "Patch",
    "Reroute",
    "Resample",
    "Resolved",
    "Scale",
    "Site",
    "Sound",
    "Text",
    "Zero",
    "capture",
    "edit_waveform",
    "intervene",
    "resolve",
]

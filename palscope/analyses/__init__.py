"""Analyses: each is one object, which the command line and the page run.

An analysis of one's own is a file with an `ANALYSIS` (docs/how-to/analysis.md). Those that come
with palscope are the modules of this package: `palscope.analyses.leakage.ANALYSIS`.
"""

from __future__ import annotations

from palscope._beside import folder, in_clone
from palscope.analyses._analysis import Analysis, Results, Table, Work, each
from palscope.analyses._command import Command, main, run
from palscope.analyses._items import (
    AskedClip,
    ClipOptions,
    PairOptions,
    SharedPasses,
    asked_together,
    chosen_clips,
    chosen_pairs,
)
from palscope.analyses._options import Options, option
from palscope.analyses._registry import analysis_of

__all__ = [
    "Analysis",
    "AskedClip",
    "ClipOptions",
    "Command",
    "Options",
    "PairOptions",
    "Results",
    "SharedPasses",
    "Table",
    "Work",
    "analysis_of",
    "asked_together",
    "chosen_clips",
    "chosen_pairs",
    "each",
    "main",
    "option",
    "run",
]

# In a clone the analyses stand beside the package; a wheel has them in this folder.
if in_clone():
    __path__.append(str(folder("analyses")))

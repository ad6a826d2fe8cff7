"""Features: activations of whole data sets, and dictionaries that take them apart.

Dictionaries are trained by `palscope.training.train_dictionary`.
"""

from __future__ import annotations

from palscope._features.bundled import FEATURES_FOLDER
from palscope._features.clips import LabelledClip
from palscope._features.collect import collect_activations
from palscope._features.dictionary import Dictionary
from palscope._features.error_share import error_share
from palscope._features.formats import load_dictionary, save_dictionary
from palscope._features.heard.build import index_units
from palscope._features.heard.index import UnitIndex
from palscope._features.heard.search import what_fires
from palscope._features.heard.show import unit_html
from palscope._features.heard.source import UnitSource
from palscope._features.scores import (
    both_signs,
    dictionary_scores,
    label_scores,
    live_latents,
    matched_cosine,
    random_dictionary,
)
from palscope._features.splice import spliced
from palscope._features.store import ActivationStore

__all__ = [
    "FEATURES_FOLDER",
    "ActivationStore",
    "Dictionary",
    "LabelledClip",
    "UnitIndex",
    "UnitSource",
    "both_signs",
    "collect_activations",
    "dictionary_scores",
    "error_share",
    "index_units",
    "label_scores",
    "live_latents",
    "load_dictionary",
    "matched_cosine",
    "random_dictionary",
    "save_dictionary",
    "spliced",
    "unit_html",
    "what_fires",
]

"""Features: activations of whole data sets, with each row's clip and seconds."""

from __future__ import annotations

from palscope._features.clips import LabelledClip
from palscope._features.collect import collect_activations
from palscope._features.store import ActivationStore

__all__ = [
    "ActivationStore",
    "LabelledClip",
    "collect_activations",
]

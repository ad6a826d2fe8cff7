"""Measures: each takes a hooked model and its input, and returns a tidy table."""

from palscope._statistics import mean_band
from palscope.measures._attention_mass import attention_mass, by_pathway, over_time
from palscope.measures._connector_attention import connector_attention
from palscope.measures._pathway_mass import (
    clip_sets,
    pathway_mass,
    pathway_sets,
    seconds_set,
    set_mass,
)
from palscope.measures._seconds import by_seconds, mass_per_second, tokens_within

__all__ = [
    "attention_mass",
    "by_pathway",
    "by_seconds",
    "clip_sets",
    "connector_attention",
    "mass_per_second",
    "mean_band",
    "over_time",
    "pathway_mass",
    "pathway_sets",
    "seconds_set",
    "set_mass",
    "tokens_within",
]

"""Measures: each takes a hooked model and its input, and returns a tidy table."""

from palscope.measures.attention_mass import attention_mass, by_pathway, over_time
from palscope.measures.bands import mean_band

__all__ = ["attention_mass", "by_pathway", "mean_band", "over_time"]

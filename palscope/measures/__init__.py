"""Measures: each takes a hooked model and its input, and returns a tidy table."""

from __future__ import annotations

from palscope._statistics import mean_band
from palscope.measures._alignment import published_heads, spoken_attention
from palscope.measures._attention_mass import attention_mass, by_pathway, over_time
from palscope.measures._attribution import attribution_patching, integrated_gradients
from palscope.measures._choices import choice_logprobs
from palscope.measures._connector_attention import connector_attention
from palscope.measures._cost_model import cache_bytes, forward_costs, prompt_layout
from palscope.measures._grids import (
    layers_by_heads,
    layers_by_places,
)
from palscope.measures._head_effects import head_effects, shortest_window
from palscope.measures._key_writes import attention_writes
from palscope.measures._knockout import (
    attention_knockout,
    knockout_effects,
    text_to_audio,
)
from palscope.measures._leakage import leakage
from palscope.measures._logit_lens import logit_lens
from palscope.measures._masking import pathway_masking
from palscope.measures._metrics import Answers
from palscope.measures._patching import activation_patching, patching_effects
from palscope.measures._pathway_mass import clip_sets, pathway_mass, seconds_set, set_mass
from palscope.measures._seconds import by_seconds, tokens_within
from palscope.measures._stretches import disjoint_stretches

__all__ = [
    "Answers",
    "activation_patching",
    "attention_knockout",
    "attention_mass",
    "attention_writes",
    "attribution_patching",
    "by_pathway",
    "by_seconds",
    "cache_bytes",
    "choice_logprobs",
    "clip_sets",
    "connector_attention",
    "disjoint_stretches",
    "forward_costs",
    "head_effects",
    "integrated_gradients",
    "knockout_effects",
    "layers_by_heads",
    "layers_by_places",
    "leakage",
    "logit_lens",
    "mean_band",
    "over_time",
    "patching_effects",
    "pathway_masking",
    "pathway_mass",
    "prompt_layout",
    "published_heads",
    "seconds_set",
    "set_mass",
    "shortest_window",
    "spoken_attention",
    "text_to_audio",
    "tokens_within",
]

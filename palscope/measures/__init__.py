"""Measures: each takes a hooked model and its input, and returns a tidy table."""

from __future__ import annotations

from palscope._statistics import mean_band
from palscope.measures._attention_mass import attention_mass, by_pathway, over_time
from palscope.measures._attribution import attribution_patching, integrated_gradients
from palscope.measures._choices import choice_logprobs
from palscope.measures._connector_attention import connector_attention
from palscope.measures._cost_model import cache_bytes, forward_costs, prompt_layout
from palscope.measures._depth import depth_of_mass
from palscope.measures._faithfulness import deletion_insertion
from palscope.measures._grids import (
    layer_windows,
    layers_by_heads,
    layers_by_places,
    sites_by_places,
    streams_by_layers,
)
from palscope.measures._key_writes import attention_writes
from palscope.measures._knockout import (
    attention_knockout,
    generated_knockout,
    knockout_effects,
    sliding_windows,
    text_to_audio,
)
from palscope.measures._leakage import leakage, receptive_field
from palscope.measures._logit_lens import answer_lead, logit_lens, readable_from
from palscope.measures._masking import masking_scores, pathway_masking
from palscope.measures._metrics import Answers
from palscope.measures._patching import activation_patching, input_patching, patching_effects
from palscope.measures._pathway_mass import clip_sets, pathway_mass, seconds_set, set_mass
from palscope.measures._profile import listening_profile
from palscope.measures._seconds import by_seconds, tokens_within

__all__ = [
    "Answers",
    "activation_patching",
    "answer_lead",
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
    "deletion_insertion",
    "depth_of_mass",
    "forward_costs",
    "generated_knockout",
    "input_patching",
    "integrated_gradients",
    "knockout_effects",
    "layer_windows",
    "layers_by_heads",
    "layers_by_places",
    "leakage",
    "listening_profile",
    "logit_lens",
    "masking_scores",
    "mean_band",
    "over_time",
    "patching_effects",
    "pathway_masking",
    "pathway_mass",
    "prompt_layout",
    "readable_from",
    "receptive_field",
    "seconds_set",
    "set_mass",
    "sites_by_places",
    "sliding_windows",
    "streams_by_layers",
    "text_to_audio",
    "tokens_within",
]

"""Moonshine's decoder: words turned by their positions (RoPE), and sound in a second attention.

(transformers, models/moonshine; arXiv 2410.15608.)
"""

from __future__ import annotations

from palscope._models.crossing import crossed_keys_values, run_crossing_layer
from palscope._models.families import PUBLISHED, Family

PUBLISHED["moonshine"] = Family(
    "PalscopeMoonshineDecoder",
    crossed_keys_values,
    run_layer=run_crossing_layer,
    crossing="encoder_attn",
)

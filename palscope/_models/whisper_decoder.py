"""Whisper's decoder: words with learned positions, and sound in a second attention.

(transformers, models/whisper; arXiv 2212.04356.)
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from palscope._models.crossing import crossed_keys_values, run_crossing_layer
from palscope._models.families import PUBLISHED, Family


def _placed(
    decoder: Any,
    embedded: Float[Tensor, "batch columns d"],
    ids: Int[Tensor, "batch columns"],
    number: Int[Tensor, "batch columns"],
) -> Tensor:
    """Words with the positions that they have among words."""
    last = decoder.config.max_target_positions - 1  # a place without a word may have any
    return embedded + decoder.embed_positions(ids, position_ids=number.clamp(max=last))


PUBLISHED["whisper"] = Family(
    "PalscopeWhisperDecoder",
    crossed_keys_values,
    placed=_placed,
    run_layer=run_crossing_layer,
    norm="layer_norm",
    turns=False,
    crossing="encoder_attn",
)

"""Whisper's decoder: words with positions of their own, and sound in a second attention.

Sound is what the encoder made of it, in every layer the same: a layer's second attention
(`encoder_attn`) makes keys and values of it, and reads it apart from the words. Its weights sum to
1 over sound alone. (transformers, models/whisper; arXiv 2212.04356.)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import EncoderDecoderCache

from palscope._models.cache import Crossed
from palscope._models.cache_names import INSTALLED
from palscope._models.families import PUBLISHED, Family, KeysValues, plain_call, raw, split_heads


class _Held:
    """Stands in for the cache of a layer's second attention: keys and values that are there."""

    def __init__(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self.layers = {layer: self}
        self.keys, self.values = keys, values


class _CrossedCache(EncoderDecoderCache):
    """What one layer takes for its cache: the words' own, and sound as if it were held already."""

    def __init__(self, words: Any, layer: int, keys: Tensor, values: Tensor) -> None:
        self.self_attention_cache: Any = words
        self.cross_attention_cache: Any = _Held(layer, keys, values)
        self.is_updated = {layer: True}


def _keys_values(layer: Any, state: Tensor) -> KeysValues:
    attention = raw(layer.encoder_attn)
    keys, values = plain_call(attention.k_proj, state), plain_call(attention.v_proj, state)
    return split_heads(attention, keys), split_heads(attention, values)


def _placed(
    decoder: Any,
    embedded: Float[Tensor, "batch columns d"],
    ids: Int[Tensor, "batch columns"],
    number: Int[Tensor, "batch columns"],
) -> Tensor:
    """Words with the positions that they have among words."""
    last = decoder.config.max_target_positions - 1  # a place without a word may have any
    return embedded + decoder.embed_positions(ids, position_ids=number.clamp(max=last))


def _run_layer(
    layer: Any,
    state: Tensor,
    shared: Any,
    *,
    crossed: Crossed | None,
    position_ids: Any,
    **given: Any,
) -> Tensor:
    """A layer's call; without `crossed` sound it skips its second attention."""
    del shared, position_ids
    if crossed is None:
        return layer(state, **given)
    index = raw(raw(layer).encoder_attn).layer_idx
    given[INSTALLED] = _CrossedCache(given[INSTALLED], index, crossed.keys, crossed.values)
    # The state itself is never read: keys and values are there. That it is given calls for them.
    there = torch.empty(0, device=state.device)
    return layer(state, encoder_hidden_states=there, encoder_attention_mask=crossed.mask, **given)


PUBLISHED["whisper"] = Family(
    "PalscopeWhisperDecoder",
    _keys_values,
    placed=_placed,
    run_layer=_run_layer,
    norm="layer_norm",
    turns=False,
    crossing="encoder_attn",
)

"""A layer of two attentions as encoder–decoders have them: words, and sound in the second.

Sound is what the encoder made of it, in every layer the same: a layer's second attention
(`encoder_attn`) makes keys and values of it, and reads it apart from the words. Its weights sum to
1 over sound alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import EncoderDecoderCache

from palscope._models.cache import Crossed
from palscope._models.cache_names import INSTALLED
from palscope._models.families import KeysValues, plain_call, raw, split_heads


class _Held:
    """Stands in for the cache of a layer's second attention: keys and values that are there."""

    def __init__(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self.layers = {layer: self}
        self.keys, self.values = keys, values


class _LayerCache(EncoderDecoderCache):
    """What one layer takes for its cache: the words' own, and sound as if it were held already."""

    def __init__(self, words: Any, layer: int, crossed: Crossed | None) -> None:
        self.self_attention_cache: Any = words
        self.cross_attention_cache: Any = None
        self.is_updated = {}
        if crossed is not None:
            self.cross_attention_cache = _Held(layer, crossed.keys, crossed.values)
            self.is_updated = {layer: True}


def crossed_keys_values(layer: Any, state: Tensor) -> KeysValues:
    """Those of a layer's second attention, which has no norm before them and turns no positions."""
    attention = raw(layer.encoder_attn)
    keys, values = plain_call(attention.k_proj, state), plain_call(attention.v_proj, state)
    return split_heads(attention, keys), split_heads(attention, values)


def run_crossing_layer(
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
    words = given.pop(INSTALLED)
    if crossed is None:
        held = None if words is None else _LayerCache(words, 0, None)
        return layer(state, **given, **{INSTALLED: held})
    index = raw(raw(layer).encoder_attn).layer_idx
    # The state itself is never read: keys and values are there. That it is given calls for them.
    return layer(
        state,
        encoder_hidden_states=torch.empty(0, device=state.device),
        encoder_attention_mask=crossed.mask,
        **given,
        **{INSTALLED: _LayerCache(words, index, crossed)},
    )

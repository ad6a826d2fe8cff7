"""Gemma 3n's decoder: four streams a token (AltUp), an input to every layer, keys that are shared.

What runs through the layers is packed, `[batch, tokens, 4 * d_model + layers * per_layer]`: the
streams side by side, the active one first, then the token's input to each layer. The latter is made
once, of the token's id and its embedding, and never changes. (transformers, models/gemma3n; AltUp:
arXiv 2301.13310.)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._models.families import PUBLISHED, Family, KeysValues, plain_call, raw, split_heads


def packed(streams: Float[Tensor, "streams batch tokens d"]) -> Float[Tensor, "batch tokens wide"]:
    """Streams of a layer, side by side."""
    return streams.permute(1, 2, 0, 3).flatten(-2)


def unpacked(
    state: Float[Tensor, "batch tokens wide"], streams: int
) -> Float[Tensor, "streams batch tokens d"]:
    """So many streams, as a layer takes them."""
    return state.unflatten(-1, (streams, -1)).permute(2, 0, 1, 3).contiguous()


def _residual(config: Any, state: Tensor) -> Float[Tensor, "*tokens wide"]:
    return state[..., : config.altup_num_inputs * config.hidden_size]


def _keys_values(layer: Any, state: Tensor) -> KeysValues:
    """Of what AltUp predicts for the active stream; keys and values have norms over each head."""
    attention, altup = raw(layer.self_attn), raw(layer.altup)
    config = altup.config
    active = altup.predict(unpacked(state, config.altup_num_inputs))[config.altup_active_idx]
    x = plain_call(layer.input_layernorm, active)
    keys, values = plain_call(attention.k_proj, x), plain_call(attention.v_proj, x)
    return (
        plain_call(attention.k_norm, split_heads(attention, keys)),
        plain_call(attention.v_norm, split_heads(attention, values)),
    )


def _scaled_like(x: Tensor, other: Tensor) -> Tensor:
    """`x` with the root mean square of `other`, where that is."""
    x = x.to(other.device)
    wanted = other.pow(2).mean(-1, keepdim=True) ** 0.5
    return x * wanted / x.pow(2).mean(-1, keepdim=True).clamp(min=1e-5).sqrt()


def _enter(decoder: Any, embedded: Float[Tensor, "batch columns d"]) -> Tensor:
    others = [_scaled_like(project(embedded), embedded) for project in decoder.altup_projections]
    return torch.cat([embedded, *others], -1)


def _beside(decoder: Any, ids: Int[Tensor, "batch columns"], embedded: Tensor) -> Tensor:
    of_ids = decoder.get_per_layer_inputs(ids)
    return decoder.project_per_layer_inputs(embedded, of_ids).flatten(-2)


def _leave(decoder: Any, state: Float[Tensor, "*tokens wide"]) -> Float[Tensor, "*tokens d"]:
    config = decoder.config
    first, *others = _residual(config, state).chunk(config.altup_num_inputs, -1)
    scaled = [
        _scaled_like(project(other), first)
        for project, other in zip(decoder.altup_unembed_projections, others, strict=True)
    ]
    return torch.stack([first, *scaled]).mean(0)


def _run_layer(
    layer: Any, state: Tensor, shared: Any, *, position_embeddings: Any, **given: Any
) -> Tensor:
    config, index = raw(layer).config, raw(layer).layer_idx
    residual = _residual(config, state)
    beside = state[..., residual.shape[-1] :]
    own = beside.unflatten(-1, (config.num_hidden_layers, -1))[..., index, :]
    streams = unpacked(residual, config.altup_num_inputs)
    out = layer(streams, position_embeddings, own, shared_kv_states=shared, **given)
    return torch.cat([packed(out), beside.to(out.device)], -1)


PUBLISHED["gemma3n_text"] = Family(
    "Gemma3nForCausalLM",
    _keys_values,
    enter=_enter,
    beside=_beside,
    residual=_residual,
    leave=_leave,
    run_layer=_run_layer,
)

"""Decoder families: how each turns a layer's input into keys and values.

LAL (PAL paper, section 3.2) sends audio states through a layer's own input norm and its K and V
projections, and through nothing else. Everything else about a decoder is left to Hugging Face's
classes, so a family is one short function here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope.errors import CheckpointError
from palscope.models.adapted import projected_rows

KeysValues = tuple[
    Float[Tensor, "batch tokens kv_heads head_dim"], Float[Tensor, "batch tokens kv_heads head_dim"]
]


def raw(module: Any) -> Any:
    """The Hugging Face module behind a TransformerLens component, or the module itself.

    Audio states go through norms and projections that text goes through too. They bypass the hooks
    on those, which belong to the text; audio has hook points of its own.
    """
    while hasattr(module, "original_component") and module.original_component is not None:
        module = module.original_component
    return module


def _call(module: Any, x: Tensor) -> Tensor:
    """`module` on `x` without firing the module's hooks (see `raw`)."""
    return raw(module).forward(x)


def _split_heads(attention: Any, x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, attention.head_dim))


def _separate(layer: Any, state: Tensor) -> KeysValues:
    """Pre-norm with separate projections: Llama, Mistral, Qwen2, Gemma 2, Granite."""
    attention = raw(layer.self_attn)
    x = _call(layer.input_layernorm, state)
    keys, values = _call(attention.k_proj, x), _call(attention.v_proj, x)
    return _split_heads(attention, keys), _split_heads(attention, values)


def _separate_head_norm(layer: Any, state: Tensor) -> KeysValues:
    """Pre-norm, and a norm over each key head: Qwen3, Gemma 3."""
    keys, values = _separate(layer, state)
    return _call(raw(layer.self_attn).k_norm, keys), values


def _post_norm(layer: Any, state: Tensor) -> KeysValues:
    """No input norm; one norm over all key heads together: OLMo 2."""
    attention = raw(layer.self_attn)
    keys = _call(attention.k_norm, _call(attention.k_proj, state))
    return _split_heads(attention, keys), _split_heads(attention, _call(attention.v_proj, state))


def _fused(layer: Any, state: Tensor) -> KeysValues:
    """One projection for queries, keys and values: Phi-3. Only the K and V rows are multiplied."""
    attention = raw(layer.self_attn)
    x = _call(layer.input_layernorm, state)
    first = attention.config.num_attention_heads * attention.head_dim
    both = projected_rows(raw(attention.qkv_proj), slice(first, None), x)
    keys, values = both.chunk(2, dim=-1)
    return _split_heads(attention, keys), _split_heads(attention, values)


def _as_embedded(decoder: Any, embedded: Tensor) -> Tensor:
    """Words and sound enter the first layer as they are: nearly all families."""
    del decoder
    return embedded


def _multiplied(decoder: Any, embedded: Tensor) -> Tensor:
    """Granite's multiplier."""
    return embedded * decoder.embedding_multiplier


def _soft_capped(config: Any, logits: Tensor) -> Tensor:
    """Logits as they are, or capped where the config says so: Gemma 2, Gemma 3n."""
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _undivided(config: Any) -> float:
    """Logits stay as they are: nearly all families."""
    del config
    return 1.0


def _logits_scaling(config: Any) -> float:
    """Granite's."""
    return config.logits_scaling


@dataclass(frozen=True)
class Family:
    """A supported decoder family.

    Attributes:
        architecture: the Hugging Face class, which also names TransformerLens's adapter.
        keys_values: of a layer and the state that enters it.
        enter: what the decoder does to embeddings `[batch, columns, d_model]`, words and sound
            alike, before its first layer.
        divisor: what the unembedding's output is divided by, by the decoder's config.
        logits: what is done to it then, by the decoder's config.
    """

    architecture: str
    keys_values: Callable[[Any, Tensor], KeysValues]
    enter: Callable[[Any, Tensor], Tensor] = _as_embedded
    divisor: Callable[[Any], float] = _undivided
    logits: Callable[[Any, Tensor], Tensor] = _soft_capped


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", _separate),
    "mistral": Family("MistralForCausalLM", _separate),
    "qwen2": Family("Qwen2ForCausalLM", _separate),
    "qwen3": Family("Qwen3ForCausalLM", _separate_head_norm),
    "gemma2": Family("Gemma2ForCausalLM", _separate),
    "gemma3_text": Family("Gemma3ForCausalLM", _separate_head_norm),
    "phi3": Family("Phi3ForCausalLM", _fused),
    "olmo2": Family("Olmo2ForCausalLM", _post_norm),
    "granite": Family("GraniteForCausalLM", _separate, enter=_multiplied, divisor=_logits_scaling),
}

PUBLISHED: dict[str, Family] = {
    "phi4_multimodal": Family("Phi3ForCausalLM", _fused),
    "qwen2_5_omni_text": Family("Qwen2ForCausalLM", _separate),
    "qwen3_omni_moe_text": Family("Qwen3MoeForCausalLM", _separate_head_norm),
}
"""Families that only published models have: palscope's own are not built on them."""


def family_of(config: Any) -> Family:
    """The family of a decoder's config.

    Raises:
        CheckpointError: the family is not supported; the message names those that are.
    """
    family = FAMILIES.get(config.model_type) or PUBLISHED.get(config.model_type)
    if family is None:
        raise CheckpointError(
            f"decoder family {config.model_type!r} is not supported. Supported: "
            f"{', '.join(sorted(FAMILIES))}. A family is one function in "
            "palscope/models/families.py."
        )
    return family


def sliding_window(config: Any, layer: int) -> int | None:
    """Width in positions of `layer`'s attention window; None when it sees everything."""
    if config.model_type == "qwen3_omni_moe_text":
        return None  # the class has the field, and does not read it
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return config.sliding_window if kinds[layer] == "sliding_attention" else None
    return getattr(config, "sliding_window", None)


def rotary(decoder: Any, x: Tensor, position_ids: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """cos and sin `[batch, tokens, rotary_dim]` of `position_ids` for `layer`.

    Gemma 3 turns by another base in its sliding layers, and so takes the layer's type.
    """
    if decoder.config.model_type == "gemma3_text":
        return decoder.rotary_emb(x, position_ids, decoder.config.layer_types[layer])
    return decoder.rotary_emb(x, position_ids)


def rotary_kind(config: Any, layer: int) -> str:
    """Layers of one kind share their cos and sin."""
    return config.layer_types[layer] if config.model_type == "gemma3_text" else "all"


def rotary_switch(config: Any) -> int | None:
    """Length of the prompts beyond which all positions are turned otherwise (longrope).

    None where there is no such length.
    """
    given: Any = getattr(config, "rope_parameters", None) or {}
    if given.get("rope_type") != "longrope":
        return None
    return given["original_max_position_embeddings"]


def rotate_keys(
    keys: Float[Tensor, "batch kv_heads tokens head_dim"],
    cos: Float[Tensor, "batch tokens rotary_dim"],
    sin: Float[Tensor, "batch tokens rotary_dim"],
) -> Float[Tensor, "batch kv_heads tokens head_dim"]:
    """RoPE on keys; dimensions beyond `rotary_dim` pass (partial rotary, Phi-3)."""
    turned, passed = keys.split([cos.shape[-1], keys.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = turned.chunk(2, dim=-1)
    half = torch.cat([-second, first], dim=-1)
    turned = turned * cos.unsqueeze(1) + half * sin.unsqueeze(1)
    # OLMo 2 keeps cos and sin in float32, and turns back to the model's type.
    turned = turned.to(keys.dtype)
    return torch.cat([turned, passed], dim=-1) if passed.shape[-1] else turned

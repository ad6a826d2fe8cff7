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

from palscope._models.adapted import projected_rows
from palscope._registry import find

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


def plain_call(module: Any, x: Tensor) -> Tensor:
    """`module` on `x` without firing the module's hooks (see `raw`)."""
    return raw(module).forward(x)


def split_heads(attention: Any, x: Tensor) -> Tensor:
    """`x` with its last dimension as heads and their dimensions."""
    return x.unflatten(-1, (-1, attention.head_dim))


def key_parts(layer: Any) -> list[Any]:
    """The modules of a layer that keys and values are made by, of whatever family."""
    parts = raw(layer)._modules
    attention = raw(parts.get("encoder_attn", parts["self_attn"]))._modules
    names = ("k_proj", "v_proj", "qkv_proj", "k_norm", "v_norm")
    found = [parts.get("input_layernorm"), *(attention.get(n) for n in names)]
    return [part for part in found if part is not None]


def _separate(layer: Any, state: Tensor) -> KeysValues:
    """Pre-norm with separate projections: Llama, Mistral, Qwen2, Gemma 2, Granite."""
    attention = raw(layer.self_attn)
    x = plain_call(layer.input_layernorm, state)
    keys, values = plain_call(attention.k_proj, x), plain_call(attention.v_proj, x)
    return split_heads(attention, keys), split_heads(attention, values)


def _separate_head_norm(layer: Any, state: Tensor) -> KeysValues:
    """Pre-norm, and a norm over each key head: Qwen3, Gemma 3."""
    keys, values = _separate(layer, state)
    return plain_call(raw(layer.self_attn).k_norm, keys), values


def _post_norm(layer: Any, state: Tensor) -> KeysValues:
    """No input norm; one norm over all key heads together: OLMo 2."""
    attention = raw(layer.self_attn)
    keys = plain_call(attention.k_norm, plain_call(attention.k_proj, state))
    return split_heads(attention, keys), split_heads(attention, plain_call(attention.v_proj, state))


def _fused(layer: Any, state: Tensor) -> KeysValues:
    """One projection for queries, keys and values: Phi-3. Only the K and V rows are multiplied."""
    attention = raw(layer.self_attn)
    x = plain_call(layer.input_layernorm, state)
    first = attention.config.num_attention_heads * attention.head_dim
    both = projected_rows(raw(attention.qkv_proj), slice(first, None), x)
    keys, values = both.chunk(2, dim=-1)
    return split_heads(attention, keys), split_heads(attention, values)


def _as_embedded(decoder: Any, embedded: Tensor) -> Tensor:
    """Words and sound enter the first layer as they are: nearly all families."""
    del decoder
    return embedded


def _multiplied(decoder: Any, embedded: Tensor) -> Tensor:
    """Granite's multiplier."""
    return embedded * decoder.embedding_multiplier


def _as_state(config: Any, state: Tensor) -> Tensor:
    """All that runs through the layers is residual state: nearly all families."""
    del config
    return state


def _one_layer(layer: Any, state: Tensor, shared: Any, **given: Any) -> Tensor:
    """A layer that takes one state a token and shares nothing with others: nearly all families."""
    del shared
    out = layer(state, **given)
    return out[0] if isinstance(out, tuple) else out


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
        beside: what each token takes along beside its state, `[batch, columns, beside]`, of the
            decoder, its id (0 for sound) and its embedding; None where that is nothing.
        residual: of what runs, the residual state, by the decoder's config: it comes first.
        leave: what the decoder does to what left its last layer, before its norm.
        run_layer: one layer's call, of the layer, what runs, `shared` and the layer's arguments.
            `shared` is one object for all layers of a pass, for keys that several of them use.
        placed: what the decoder adds to embeddings of words, of the decoder, the embeddings, ids
            and each word's number among the words; None where positions are turned into keys.
        norm: name of the decoder's last norm.
        turns: whether positions of words are turned into queries and keys (RoPE).
        crossing: name of a layer's second attention, which reads audio alone; None without one.
            Words are then counted without audio, whose keys are not turned.
    """

    architecture: str
    keys_values: Callable[[Any, Tensor], KeysValues]
    enter: Callable[[Any, Tensor], Tensor] = _as_embedded
    divisor: Callable[[Any], float] = _undivided
    logits: Callable[[Any, Tensor], Tensor] = _soft_capped
    beside: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    residual: Callable[[Any, Tensor], Tensor] = _as_state
    leave: Callable[[Any, Tensor], Tensor] = _as_embedded
    run_layer: Callable[..., Tensor] = _one_layer
    placed: Callable[[Any, Tensor, Tensor, Tensor], Tensor] | None = None
    norm: str = "norm"
    turns: bool = True
    crossing: str | None = None


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
"""Families that only published models have: palscope's own connectors do not fit them."""


def family_of(config: Any) -> Family:
    """The family of a decoder's config.

    Raises:
        CheckpointError: the family is not supported; the message names those that are.
    """
    hint = "A family is one function in palscope/_models/families.py."
    return find({**FAMILIES, **PUBLISHED}, config.model_type, "decoder family", hint=hint)


def sliding_window(config: Any, layer: int) -> int | None:
    """Width in positions of `layer`'s attention window; None when it sees everything."""
    if config.model_type == "qwen3_omni_moe_text":
        return None  # the class has the field, and does not read it
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return config.sliding_window if kinds[layer] == "sliding_attention" else None
    return getattr(config, "sliding_window", None)


def key_layer(config: Any, layer: int) -> int:
    """The layer whose keys and values `layer` reads: its own, but in Gemma 3n's upper layers.

    Those have no projections for them. They read the last layer of their type that has.
    """
    shared = getattr(config, "num_kv_shared_layers", None) or 0
    own = config.num_hidden_layers - shared
    if not shared or layer < own:
        return layer
    kinds = config.layer_types
    return max(i for i in range(own) if kinds[i] == kinds[layer])


_BY_LAYER_TYPE = ("gemma3_text", "gemma3n_text")
"""Decoders whose rotary angles differ by the layer's type."""


def rotary(decoder: Any, x: Tensor, position_ids: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """cos and sin `[batch, tokens, rotary_dim]` of `position_ids` for `layer`.

    Gemma 3 and 3n turn by another base in their sliding layers, and so take the layer's type.
    """
    if decoder.config.model_type in _BY_LAYER_TYPE:
        return decoder.rotary_emb(x, position_ids, decoder.config.layer_types[layer])
    return decoder.rotary_emb(x, position_ids)


def rotary_kind(config: Any, layer: int) -> str:
    """Layers of one kind share their cos and sin."""
    return config.layer_types[layer] if config.model_type in _BY_LAYER_TYPE else "all"


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

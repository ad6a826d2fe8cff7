"""From an address to exact tokens: which hook points, which rows and columns, what they cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import TokenLayout
from palscope.errors import PalscopeError
from palscope.interventions._address import OF_SPLICES, SITES, Address, SiteName, Text
from palscope.interventions._before_decoder import before_the_decoder, connector_output
from palscope.interventions._parts import (
    Part,
    Resolved,
    TokenAxis,
    checked,
    covered_by,
    used_columns,
)
from palscope.interventions._splices import in_a_splice
from palscope.interventions._tokens import token_columns

_BLOCK = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_in": "mlp.hook_in",
    "mlp_out": "hook_mlp_out",
    "head_output": "attn.hook_z",
    "pattern": "attn.hook_pattern",
    "cross_out": "hook_cross_attn_out",
    "cross_head_output": "cross_attn.hook_z",
    "cross_pattern": "cross_attn.hook_pattern",
}


def resolve(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    address: Address,
    layout: TokenLayout | None = None,
) -> Resolved:
    """The exact tokens of `address` under the model's current route, in every row of `inputs`.

    A token's seconds say where its own samples are. What it knows is wider: Whisper attends over
    the clip's whole window (30 s), so a patched token is not a patched sound; `measures.leakage`
    measures the difference, and the site `waveform` patches sound itself.

    Raises:
        PalscopeError: the address is empty here, lies outside of the clip, or names layers or heads
            that the model does not have, or in which the tokens do not stand.
        PromptError: a text is not in the prompt, or more than once.
    """
    if address.site == "waveform":
        raise PalscopeError(
            "the waveform lies before the model's input: edit the clip by edit_waveform, and make "
            "the inputs from it."
        )
    layout = (model.layout(inputs) if layout is None else layout).on_host
    if address.site in OF_SPLICES:
        return in_a_splice(model, inputs, address, layout, resolve)
    outside = SITES[address.site].tokens == "sound" or address.site == "connector_output"
    if outside and inputs.get("input_features") is None:
        raise PalscopeError(
            f"{address.site} lies before the decoder, but the clips come encoded (audio=): give "
            "input_features."
        )
    if SITES[address.site].tokens == "sound":
        return before_the_decoder(model, inputs, address, layout)
    if address.site == "connector_output":
        return connector_output(model, address, layout)
    return _in_the_decoder(model, address, layout)


# -- inside the decoder ---------------------------------------------------------------------------


def _in_the_decoder(model: HookedAudioModel, address: Address, layout: TokenLayout) -> Resolved:
    route = model.current_route
    if address.site.startswith("cross_") and model.audio_attention == "attn":
        raise PalscopeError(
            f"{address.site}: this model reads sound in its layers' only attention; its site is "
            f"{'head_output' if 'head' in address.site else 'attn_out'}."
        )
    layers = checked("layer", address.layers, route.n_layers)
    heads = address.heads
    if heads is not None:
        checked("head", heads, model.cfg.n_heads)
    rows = layout.stream.shape[0]
    chosen = [token_columns(model, address.key_tokens, layout, row) for row in range(rows)]
    readers = (
        [token_columns(model, address.queries, layout, row) for row in range(rows)]
        if address.site == "pattern"
        else None
    )
    onwards = address.key_tokens in (None, Text())
    parts: list[Part] = []
    for layer in layers:
        found: list[Part] = []
        for row in range(rows):
            found += _layer_parts(model, address, layout, layer, row, chosen[row], onwards)
        if readers is not None:
            read = [_read_by(model, part, layout, readers[part.row], address) for part in found]
            found = [part for part in read if part is not None]
        if not found and address.layers is not None:
            raise PalscopeError(
                f"{address.site}: none of the addressed tokens stands there in layer {layer} under "
                f"this route (audio streams there: {_levels(model, layer)})."
            )
        parts += found
    if not parts:
        raise PalscopeError(
            f"{address.site}: the addressed tokens stand there in no layer under this route:\n"
            f"{route}"
        )
    return Resolved(address, tuple(parts), lambda: covered_by(layout, used_columns(parts)))


def _layer_parts(
    model: HookedAudioModel,
    address: Address,
    layout: TokenLayout,
    layer: int,
    row: int,
    chosen: Int[Tensor, "tokens"],
    onwards: bool,
) -> list[Part]:
    """The parts of one layer and row: tokens that run, and tokens that are keys only."""
    columns = layout.layer_columns(model.current_route, layer)
    running = _among(chosen, columns.running[row])
    memory = _among(chosen, columns.audio[row])
    block = f"blocks.{layer}"
    heads = address.heads
    if address.site == "pattern":
        # Each of a layer's attentions has its own; a key is read in one of them.
        own, crossed = (_among(chosen, each[row]) for each in (columns.keys, columns.crossed))
        both: tuple[tuple[TokenAxis, Tensor, bool], ...] = (
            ("pattern", own, onwards),
            ("cross_pattern", crossed, False),
        )
        parts = [
            Part(f"{block}.{_BLOCK[axis]}", axis, row, keys, on, layer, heads)
            for axis, keys, on in both
        ]
        return [part for part in parts if len(part.columns)]
    if address.site in ("audio_state", "audio_k", "audio_v"):
        letter = address.site[-1]
        audio = f"{block}.{model.audio_attention}"
        if letter in "kv":
            heads = _kv_heads(model, address)
            names = (f"{audio}.hook_audio_{letter}", f"{block}.attn.hook_{letter}")
        else:
            names = (f"{audio}.hook_audio_state", f"{block}.hook_resid_pre")
        parts = [
            Part(names[0], "memory", row, memory, False, layer, heads),
            Part(names[1], "running", row, running, False, layer, heads),
        ]
        return [part for part in parts if len(part.columns)]
    hook, axis = block_place(model, address.site, layer)
    if address.site.startswith("cross_") and not model.can_fire(hook):
        return []
    if address.site in ("mlp_in", "mlp_out"):
        running = _among(chosen, columns.fed[row])
    return [Part(hook, axis, row, running, onwards, layer, heads)] if len(running) else []


def block_place(model: HookedAudioModel, site: SiteName, layer: int) -> tuple[str, TokenAxis]:
    """The hook point of a site of tokens that run in a layer, and how its tensor is laid out."""
    hook = f"blocks.{layer}.{_BLOCK[site]}"
    if site == "mlp_out" and hasattr(model.blocks[layer], "ln2_post"):
        # Behind a norm of its own (Gemma, OLMo 2) what was fed stands among the others again.
        return hook, "running"
    return hook, "fed" if site in ("mlp_in", "mlp_out") else "running"


def _read_by(
    model: HookedAudioModel,
    part: Part,
    layout: TokenLayout,
    readers: Int[Tensor, "tokens"],
    address: Address,
) -> Part | None:
    """The part with the queries that run in its layer; None when there are none."""
    assert part.layer is not None
    running = layout.layer_columns(model.current_route, part.layer).running[part.row]
    queries = _among(readers, running)
    if not len(queries):
        return None
    return replace(part, queries=queries, queries_onwards=address.queries == Text())


def _kv_heads(model: HookedAudioModel, address: Address) -> tuple[int, ...] | None:
    """Places on the key-value axis of whole groups of query heads."""
    if address.heads is None:
        return None
    heads, shared = model.cfg.n_heads, getattr(model.cfg, "n_key_value_heads", None)
    group = heads // (shared or heads)
    places = sorted({head // group for head in address.heads})
    whole = {place * group + i for place in places for i in range(group)}
    if whole != set(address.heads):
        raise PalscopeError(
            f"query heads {sorted(whole)} share their keys and values: name all of them, or use "
            f"the sites head_output or pattern, which each head has for itself. Got heads "
            f"{list(address.heads)}."
        )
    return tuple(places)


def _among(chosen: Int[Tensor, "tokens"], columns: Int[Tensor, "places"]) -> Tensor:
    return chosen[torch.isin(chosen, columns)]


def _levels(model: HookedAudioModel, layer: int) -> str:
    route = model.current_route
    return ", ".join(f"{s.name} {route.cell(s.name, layer).level.value}" for s in route.streams)

"""The TransformerLens adapter of a palscope model: its decoder's own, and audio's beside it."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import nn
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components import LinearBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

from palscope.encoders import Component
from palscope.hooks.attention import with_audio
from palscope.hooks.quiet import quieten
from palscope.models import PalscopeForConditionalGeneration
from palscope.models.families import family_of

PATTERN_HOOK = "hook_pattern"
"""Of a connector's cross-attention: which encoder tokens each of its latents reads."""


class EncoderLayer(GeneralizedComponent):
    """One layer of the audio encoder."""

    is_list_item = True


def make_adapter(model: PalscopeForConditionalGeneration, name: str) -> Any:
    """The adapter: TransformerLens's for the decoder's family, with audio's hook points.

    Attention keeps the model's implementation: TransformerLens would force eager attention, which
    the hooked model needs only where someone listens.
    """
    text_config = model.config.text_config
    config = build_bridge_config_from_hf(
        copy.deepcopy(text_config), family_of(text_config).architecture, name, model.dtype
    )
    adapter: Any = ArchitectureAdapterFactory.select_architecture_adapter(config)
    adapter.cfg.attn_implementation = None
    adapter.cfg.device = str(model.device)
    for component in adapter.component_mapping.values():
        component.name = f"language_model.{component.name}"
    with_audio(adapter.component_mapping["blocks"].submodules["attn"])
    adapter.component_mapping.update(_audio_components(model))
    for component in adapter.component_mapping.values():
        quieten(component)
    return adapter


def entries(model: PalscopeForConditionalGeneration) -> list[str]:
    """The component at which each encoder's output enters the connector, by its name."""
    return ["audio_pool", *(f"audio_standard_{i + 1}" for i in range(len(model.connector.others)))]


def _audio_components(model: PalscopeForConditionalGeneration) -> dict[str, GeneralizedComponent]:
    encoder = model.encoder
    parts = {
        f"audio_{name}": _component(encoder, each, "encoder.")
        for name, each in encoder.components().items()
    }
    connector = model.connector
    path_of = {module: name for name, module in connector.named_modules()}
    # What stands inside of the resampler first: wrapping that hides the way to them.
    for number, attention in enumerate(connector.pool.attentions):
        component = GeneralizedComponent(name=f"connector.{path_of[attention]}")
        component.add_module(PATTERN_HOOK, HookPoint())
        parts[f"audio_attn_{number}"] = component
    first, *others = entries(model)
    parts[first] = GeneralizedComponent(name="connector.pool")
    for number, name in enumerate(others):
        parts[name] = GeneralizedComponent(name=f"connector.others.{number}")
    for stream in connector.summaries:
        parts[f"audio_{stream}"] = GeneralizedComponent(name=f"connector.summaries.{stream}")
    for stream in connector.input_projectors:
        parts[f"audio_input_{stream}"] = GeneralizedComponent(
            name=f"connector.input_projectors.{stream}"
        )
    for stream, layers in connector.config.projected_layers.items():
        for layer in layers:
            parts[f"audio_projector_{stream}_{layer}"] = GeneralizedComponent(
                name=f"connector.layer_projectors.{stream}.layer_{layer}"
            )
    return parts


def _component(holder: nn.Module, component: Component, prefix: str = "") -> GeneralizedComponent:
    """TransformerLens's wrapper of a part of the encoder that stands inside `holder`."""
    module = holder.get_submodule(component.path)
    if component.each:
        module = cast(nn.ModuleList, module)[0]
    parts = {name: _component(module, each) for name, each in component.parts.items()}
    name = prefix + component.path
    if component.each:
        return EncoderLayer(name=name, submodules=parts)
    if isinstance(module, nn.Linear):
        return LinearBridge(name=name, submodules=parts)
    return GeneralizedComponent(name=name, submodules=parts)

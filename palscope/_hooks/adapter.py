"""The TransformerLens adapter of an audio language model: its decoder's, and audio's beside it."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import nn
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components import LinearBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

import palscope._hooks.crossing  # pyright: ignore[reportUnusedImport]
import palscope._hooks.gemma3n  # pyright: ignore[reportUnusedImport]  # noqa: F401
from palscope._hooks.attention import with_audio
from palscope._hooks.bypass import bypass_unhooked
from palscope._hooks.fused import keep_adapters
from palscope._models.audio_model import AudioLanguageModel
from palscope._models.families import family_of
from palscope.encoders import Component

PATTERN_HOOK = "hook_pattern"
"""Of a connector's cross-attention: which encoder tokens each of its latents reads."""


class EncoderLayer(GeneralizedComponent):
    """One layer of the audio encoder."""

    is_list_item = True


def make_adapter(model: AudioLanguageModel, name: str) -> Any:
    """The adapter: TransformerLens's for the decoder's family, with audio's hook points.

    Attention keeps the model's implementation: TransformerLens would force eager attention, which
    the hooked model needs only where there is a hook.
    """
    text_config = model.text_config
    config = build_bridge_config_from_hf(
        copy.deepcopy(text_config), family_of(text_config).architecture, name, model.dtype
    )
    adapter: Any = ArchitectureAdapterFactory.select_architecture_adapter(config)
    adapter.cfg.attn_implementation = None
    adapter.cfg.device = str(model.device)
    for component in adapter.component_mapping.values():
        component.name = _path_in(model, component.name)
    with_audio(adapter.component_mapping["blocks"])
    for name, part in model.audio_components().items():
        adapter.component_mapping[f"audio_{name}"] = _component(model, part)
    for component in adapter.component_mapping.values():
        keep_adapters(component)
        bypass_unhooked(component)
    return adapter


def _path_in(model: AudioLanguageModel, path: str) -> str:
    """Where the module that a causal language model calls `path` is found in `model`."""
    first, _, rest = path.partition(".")
    if first == "lm_head":
        return model.head_path
    assert first == "model", f"TransformerLens's adapter names a part outside the decoder: {path}"
    return f"{model.decoder_path}.{rest}"


def _component(holder: nn.Module, component: Component) -> GeneralizedComponent:
    """TransformerLens's wrapper of a part that stands inside `holder`."""
    module = holder.get_submodule(component.path)
    if component.each:
        module = cast(nn.ModuleList, module)[0]
    parts = {name: _component(module, each) for name, each in component.parts.items()}
    name = component.path
    if component.each:
        return EncoderLayer(name=name, submodules=parts)
    if isinstance(module, nn.Linear):
        return LinearBridge(name=name, submodules=parts)
    wrapper = GeneralizedComponent(name=name, submodules=parts)
    if component.pattern:
        wrapper.add_module(PATTERN_HOOK, HookPoint())
    return wrapper

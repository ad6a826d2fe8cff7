"""Gemma 3n's decoder under TransformerLens: its four streams shown side by side.

TransformerLens has an adapter for the whole class, in which `hook_resid_pre` and `hook_resid_post`
are the active stream alone. But all four go on to the next layer and into the logits, so what is
read from one would be a part of the state, and what is written into one a part of a patch.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components import AltUpBlockBridge
from transformer_lens.model_bridge.supported_architectures.gemma3n import Gemma3nArchitectureAdapter

from palscope._hooked import is_hooked
from palscope._models.gemma3n_decoder import packed, unpacked


class StreamsBlock(AltUpBlockBridge):
    """A layer whose residual hook points hold all streams, `[batch, tokens, streams * d_model]`."""

    def _patch_active_stream(self, stack: Tensor, hook: HookPoint) -> Tensor:
        if not is_hooked(hook):
            return stack
        return unpacked(hook(packed(stack)), stack.shape[0])


class Gemma3nDecoderAdapter(Gemma3nArchitectureAdapter):
    """TransformerLens's adapter of the whole class, for the decoder alone."""

    def __init__(self, cfg: Any) -> None:
        self.required_libraries = []  # timm is the vision tower's
        super().__init__(cfg)
        parts: dict[str, Any] = cast(Any, self.component_mapping)
        for part in parts.values():
            part.name = part.name.replace("model.language_model.", "model.")
        blocks = parts["blocks"]
        blocks.__class__ = StreamsBlock
        del blocks.submodules["altup"]  # never called, but asked to predict and correct
        attention = blocks.submodules["attn"] = blocks.submodules.pop("self_attn")
        attention.only_fused = True  # Hugging Face's alone, whose patterns come too late to edit


ArchitectureAdapterFactory.register_adapter("Gemma3nForCausalLM", Gemma3nDecoderAdapter)

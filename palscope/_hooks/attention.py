"""Attention in the hooked model: patterns where they are hooked, and audio's hook points."""

from __future__ import annotations

import functools
from typing import Any, cast

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from palscope._models.cache_names import OLD, naming_cache

AUDIO_HOOKS = ("hook_audio_state", "hook_audio_k", "hook_audio_v")
"""Hook points of a layer's audio memory; they fire where a stream is at level `keys`."""

CROSSING = "cross_attn"
ATTENTIONS = ("attn", CROSSING)
"""A layer's attentions by TransformerLens's names; the last that it has reads audio."""

FUSED = ("hook_in", "hook_out", "q", "k", "v", "o", "q_norm", "k_norm")
"""What the fused path fires: what surrounds attention, and the projections' own hook points."""


class AudioAttention(nn.Module):
    """Mixed into a TransformerLens attention component.

    The component alone computes scores and patterns on every call. Here Hugging Face's own
    attention runs, fused where the model's is, unless something is hooked that only the
    slow path computes: scores, pattern, rotated queries and keys.
    """

    hook_audio_state: HookPoint
    hook_audio_k: HookPoint
    hook_audio_v: HookPoint
    only_fused: bool = False
    """TransformerLens has no slow path for it, so what only that computes fires no hook."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Attention of one layer, on the fused path unless something inside is hooked."""
        if self.is_hooked_inside():
            return super().forward(*args, **kwargs)
        component = cast(Any, self)
        if "hidden_states" in kwargs:
            kwargs["hidden_states"] = component.hook_in(kwargs["hidden_states"])
        else:
            args = (component.hook_in(args[0]), *args[1:])
        out: tuple[Any, ...] = component.original_component(*args, **kwargs)
        return (component.hook_out(out[0]), *out[1:])

    def _update_kv_cache(self, k: Tensor, v: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        # TransformerLens looks for the old name alone, and passes over a cache called otherwise.
        return cast(Any, super())._update_kv_cache(k, v, **naming_cache(kwargs, OLD))

    def is_hooked_inside(self) -> bool:
        """Whether a hook or a flag asks for what only the slow path computes."""
        if self.only_fused:
            return False
        component = cast(Any, self)
        if any(
            getattr(component.config, flag, False)
            for flag in ("use_attn_result", "use_split_qkv_input", "use_attn_in")
        ):
            return True
        return any(point.fwd_hooks or point.bwd_hooks for point in self._points_inside)

    @functools.cached_property
    def _points_inside(self) -> tuple[HookPoint, ...]:
        """The hook points that only the slow path fires."""
        # Joint projections fire their separate q, k and v on the slow path alone.
        joint = "qkv" in cast(Any, self).submodules
        outside = {"hook_in", "hook_out", *AUDIO_HOOKS} if joint else {*FUSED, *AUDIO_HOOKS}
        return tuple(
            module
            for name, child in self.named_children()
            if name not in outside and name != "_original_component"
            for module in child.modules()
            if isinstance(module, HookPoint)
        )


def with_audio(block: Any) -> None:
    """Turn a layer's attentions into their audio kind, in place; one gets audio's hook points.

    That is the one which reads audio: its only one, or the second of an encoder–decoder. A class is
    replaced rather than the object: adapters build attention with arguments of their own (Phi-3's
    split of a fused projection), which a new object would have to repeat.
    """
    attentions = [block.submodules[name] for name in ATTENTIONS if name in block.submodules]
    for component in attentions:
        kind: Any = type(component)
        component.__class__ = type(f"Audio{kind.__name__}", (AudioAttention, kind), {})
    for name in AUDIO_HOOKS:
        attentions[-1].add_module(name, HookPoint())

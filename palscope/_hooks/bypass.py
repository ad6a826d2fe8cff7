"""Components that nobody hooked are bypassed: they call the module behind them, and no more.

A TransformerLens component works for its hook points on every call, whether or not a hook is set:
a norm, for one, is computed twice, for `hook_scale` and `hook_normalized`. What it returns is what
the Hugging Face module behind it returns, so where none of its own hook points has a hook, that
module alone is called. Hooks on the component as a module fire as ever.
"""

from __future__ import annotations

import functools
from typing import Any, cast

from torch import nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components import AttentionBridge, BlockBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from palscope._hooked import HOOKS, is_hooked


class BypassedComponent(nn.Module):
    """Mixed into a TransformerLens component that wraps one module."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The component, or the module behind it where nobody hooked it."""
        if not self._unhooked():
            return super().__call__(*args, **kwargs)
        if is_hooked(self):
            return nn.Module.__call__(self, *args, **kwargs)
        return cast(Any, self._modules["_original_component"])(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As `__call__`, less the hooks on the component as a module."""
        if self._unhooked():
            return cast(Any, self._modules["_original_component"])(*args, **kwargs)
        return super().forward(*args, **kwargs)

    def _unhooked(self) -> bool:
        # A component around this one may have fired its hook_in for it, and says so by a flag.
        if self.__dict__.get("_suppress_next_hook_in"):
            return False
        return not any(self._hooks) and not any("forward" in parts for parts in self._parts)

    @functools.cached_property
    def _parts(self) -> tuple[dict[str, Any], ...]:
        """What each hook point holds; asked on every call, so it is looked up once."""
        return tuple(vars(child) for child in self.children() if isinstance(child, HookPoint))

    @functools.cached_property
    def _hooks(self) -> tuple[dict[int, Any], ...]:
        return tuple(parts[kind] for parts in self._parts for kind in HOOKS)


class BypassedBlock(nn.Module):
    """Mixed into the component of a whole layer."""

    def _filter_kwargs_for_forward(
        self, kwargs: dict[str, Any], num_positional_args: int = 0
    ) -> dict[str, Any]:
        """All of `kwargs`: palscope's decoder gives a layer what it takes; reading that is slow."""
        return kwargs


def bypass_unhooked(component: Any) -> None:
    """Turn a component, and all below it, into their bypassed kinds, in place.

    Attention is left as it is: it decides for itself (`palscope._hooks.attention`).
    """
    kind: Any = type(component)
    if isinstance(component, BlockBridge):
        component.__class__ = type(f"Bypassed{kind.__name__}", (BypassedBlock, kind), {})
    elif not isinstance(component, AttentionBridge) and not component.is_list_item:
        component.__class__ = type(f"Bypassed{kind.__name__}", (BypassedComponent, kind), {})
    for part in cast("dict[str, GeneralizedComponent]", component.submodules).values():
        bypass_unhooked(part)

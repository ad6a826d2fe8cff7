"""The bridge's registry of hook points, filled as TransformerLens fills it, in less time.

TransformerLens reads every attribute of every module, twice for each model: two fifths of what
hooking a small one takes. Hook points are attributes of a module's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from torch import nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

# The model's own modules, in which there are none.
_INSIDE = ("original_component", "_original_component", "original_model")


class RegistryBridge(TransformerBridge):
    """A bridge that finds its hook points fast."""

    def _scan_existing_hooks(self, module: nn.Module, prefix: str = "") -> None:
        registry = self._hook_registry
        named = {id(point) for point in registry.values() if point.name is not None}
        for name, point in _found(module, prefix, set()):
            if id(point) not in named:  # an alias is no name
                point.name = name
                named.add(id(point))
            registry[name] = point


def _found(module: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, HookPoint]]:
    """Every hook point within, by each of its names; a module that stands twice is seen once."""
    if id(module) in seen or isinstance(module, HookPoint):
        return
    seen.add(id(module))
    at = f"{path}." if path else ""
    if callable(get := getattr(module, "get_hooks", None)):
        own: Any = get()
        yield from ((at + name, point) for name, point in own.items())
    parts: Any = module
    held: dict[str, Any] = vars(module) | parts._modules
    for name, value in sorted(held.items(), key=itemgetter(0)):
        if isinstance(value, HookPoint) and not name.startswith("_") and name not in _INSIDE:
            yield at + name, value
    for name, child in module.named_children():
        if name not in _INSIDE:
            yield from _found(child, at + name, seen)

"""Whether a module is hooked: what only a hook needs is not computed for nobody."""

from __future__ import annotations

from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where a module keeps its hooks, by kind."""


def is_hooked(module: nn.Module) -> bool:
    """Whether anything but the class's own forward runs when `module` is called."""
    parts = vars(module)
    # nnsight sets no hook: it puts its own forward there.
    return any(parts[kind] for kind in HOOKS) or "forward" in parts


def has_hooks_of_others(module: nn.Module) -> bool:
    """Whether a forward hook stands on a module, TransformerLens's own apart.

    Its components watch each other by such hooks.
    """
    own = ("transformer_lens.model_bridge", "transformer_lens.factories")
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    hooks: list[Any] = [hook for kind in kinds for hook in vars(module)[kind].values()]
    return any(not str(getattr(hook, "__module__", "")).startswith(own) for hook in hooks)


def is_hooked_within(module: nn.Module) -> bool:
    """Whether a module, or one within it, is hooked."""
    return any(has_hooks_of_others(part) or "forward" in vars(part) for part in module.modules())

"""Whether someone listens to a module: what only a listener needs is not computed for nobody."""

from __future__ import annotations

from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where a module keeps its hooks, by kind."""


def is_listened_to(module: nn.Module) -> bool:
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


def is_heard_within(module: nn.Module) -> bool:
    """Whether somebody listens to a module or to one within."""
    return any(has_hooks_of_others(part) or "forward" in vars(part) for part in module.modules())

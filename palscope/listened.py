"""Whether someone listens to a module: what only a listener needs is not computed for nobody."""

from __future__ import annotations

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where a module keeps its hooks, by kind."""


def is_listened_to(module: nn.Module) -> bool:
    """Whether anything but the class's own forward runs when `module` is called."""
    parts = vars(module)
    # nnsight sets no hook: it puts its own forward there.
    return any(parts[kind] for kind in HOOKS) or "forward" in parts

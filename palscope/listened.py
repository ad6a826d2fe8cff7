"""Whether someone listens to a module: what only a listener needs is not computed for nobody."""

from __future__ import annotations

from torch import nn


def is_listened_to(module: nn.Module) -> bool:
    """Whether anything but the class's own forward runs when `module` is called."""
    parts = vars(module)
    return bool(
        parts["_forward_hooks"]
        or parts["_forward_pre_hooks"]
        or parts["_backward_hooks"]
        or parts["_backward_pre_hooks"]
        or "forward" in parts  # nnsight sets no hook: it puts its own forward there
    )

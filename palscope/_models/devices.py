"""Where a part of the model computes, when accelerate has spread it over devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device | None:
    """The device on which `module` computes; None where it has neither weights nor a place.

    It is what accelerate's hook says where one stands on the module (`device_map`): weights that
    are kept on another device or on disk are on the meta device until they are needed.
    """
    hook: Any = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        place = getattr(each, "execution_device", None)
        if place is not None:
            return torch.device(place)
    weight = next(module.parameters(), None)
    return None if weight is None else weight.device

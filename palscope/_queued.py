"""Small tensors that the host makes and a device needs, such as indices: sent without waiting."""

from __future__ import annotations

import torch
from torch import Tensor

QUEUING = {"cuda"}
"""Kinds of devices that take a copy of the CPU's memory before they are done with other work.

Others may read that memory when it is something else's already, as Apple's do (pytorch#189690).
"""


def queued(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`, without waiting for the device where that is safe."""
    return tensor.to(device, non_blocking=device.type in QUEUING)

"""What bitsandbytes holds of a model of 8 or 4 bits, read before its first pass.

That pass packs the weights otherwise on some CPUs.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.nn.modules import (
    Linear4bit,
    Linear8bitLt,
)
from torch import nn
from transformers import BitsAndBytesConfig

KINDS: dict[int, type[nn.Module]] = {8: Linear8bitLt, 4: Linear4bit}


def config(bits: int) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)


def maps(model: nn.Module, bits: int) -> set[str]:
    """Names of the linear maps of few bits."""
    return {name for name, part in model.named_modules() if isinstance(part, KINDS[bits])}


def meant(model: nn.Module, bits: int) -> dict[str, torch.Tensor]:
    """The float32 weights that the few bits stand for, by the map's name."""
    found: dict[str, torch.Tensor] = {}
    for name in maps(model, bits):
        weight: Any = model.get_submodule(name).weight
        if bits == 4:
            found[name] = bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float()
        else:
            found[name] = weight.CB.float() * weight.SCB.float()[:, None] / 127
    return found


def size(model: nn.Module, bits: int) -> int:
    """Bytes of all weights and buffers, and of what the few bits are scaled by."""
    held = [*model.parameters(), *model.buffers()]
    weights: list[Any] = [model.get_submodule(name).weight for name in maps(model, bits)]
    held += [weight.quant_state.absmax if bits == 4 else weight.SCB for weight in weights]
    return sum(tensor.nbytes for tensor in held)

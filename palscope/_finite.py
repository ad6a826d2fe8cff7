"""Numbers that are not finite are an error where they arise, in one rule for every hand-over.

From there on NaN is silent: an answer to it is the tokenizer's first word or none, and a mean, a
maximum or a rank of it looks like any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_NAMED = 3
"""Tensors that a message names."""


def all_finite(values: Tensor) -> bool:
    """Whether no number is NaN or infinite.

    One pass that writes nothing: a sum with such a term is no finite number. A sum of finite terms
    may be none either, so then the extremes tell.
    """
    if values.is_meta or not values.is_floating_point() or not values.numel():
        return True
    values = values.detach()
    if values.dtype.itemsize == 1:  # 8-bit floats have no arithmetic
        values = values.to(torch.float32)
    return bool(values.sum().isfinite()) or all(bool(end.isfinite()) for end in values.aminmax())


def squares_finite(values: Tensor) -> bool:
    """Whether no number is NaN, infinite, or so large that a norm of its token overflows.

    A norm whose sum of squares overflows makes zeros of the token, which look like numbers.
    """
    if not values.is_floating_point():
        return True
    return bool(values.detach().float().square().sum(-1).isfinite().all())


def wrong_weights(module: nn.Module) -> list[str]:
    """Names of weights and stored buffers that hold NaN or infinity, hooked or not."""
    wrong: dict[int, str] = {}  # TransformerLens has several names for one tensor
    for name, value in module.state_dict().items():
        if not all_finite(value):
            wrong.setdefault(value.data_ptr(), name.replace("._original_component", ""))
    return list(wrong.values())


def cause(module: nn.Module) -> str:
    """Where numbers that are not finite came from, as far as a model's weights tell."""
    if wrong := wrong_weights(module):
        return f"These weights are not finite: {shortened(wrong)}. Load the checkpoint again."
    dtypes: set[Any] = {p.dtype for p in module.parameters() if p.is_floating_point()}
    least = min(dtypes, key=lambda dtype: torch.finfo(dtype).max, default=torch.float32)
    return (
        "All weights are finite, so a hook, an intervention or the input made them, or numbers "
        f"grew beyond what {str(least).removeprefix('torch.')} holds "
        f"({torch.finfo(least).max:.2g}): then load with dtype=torch.float32."
    )


def shortened(names: list[str]) -> str:
    """The first of some names, and that there are more."""
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")

"""States at columns: taken from all of them, and put back among them."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def counted_behind(
    columns: Int[Tensor, "batch columns"], held: int
) -> Int[Tensor, "batch columns"]:
    """Columns of a layout as they count behind the `held` of a cached prefix; -1 stays."""
    return torch.where(columns < 0, -1, columns - held) if held else columns


def gathered(
    values: Float[Tensor, "rows columns width"], columns: Int[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen width"]:
    """The first `batch` of the rows of `values` at `columns`; a -1 takes any."""
    at = columns.to(values.device).clamp(min=0)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, at)


def scattered(
    values: Float[Tensor, "rows columns width"],
    columns: Int[Tensor, "batch chosen"],
    new: Float[Tensor, "batch chosen width"],
) -> Float[Tensor, "rows columns width"]:
    """`values` with `new` at `columns` of the first `batch` rows; what stands at -1 is dropped."""
    spare = values.new_zeros(values.shape[0], 1, values.shape[2])
    return _written(torch.cat([values, spare], dim=1), columns, new.to(values))


def spread(
    values: Float[Tensor, "batch chosen width"], columns: Int[Tensor, "batch chosen"], width: int
) -> Float[Tensor, "batch columns width"]:
    """`values` at `columns` of `width`, zeros where none of it stands; -1 and below are dropped."""
    return _written(_zeros(values, width + 1), columns, values)


def _zeros(values: Tensor, width: int) -> Float[Tensor, "batch columns width"]:
    """Zeros for so many columns. On the CPU large ones take no time until someone reads them.

    torch writes them at once; logits for a window of sound, which are zeros, are 300 MB.
    """
    shape = (values.shape[0], width, values.shape[2])
    size = math.prod(shape) * values.element_size()
    if values.device.type != "cpu" or type(values) is not Tensor or size < _LARGE:
        return values.new_zeros(shape)
    return torch.from_numpy(np.zeros(size, np.uint8)).view(values.dtype).view(shape)


_LARGE = 2**24
"""Bytes from which it counts."""


def _written(into: Tensor, columns: Tensor, new: Tensor) -> Tensor:
    """`into` but for its last column, which takes what is dropped.

    Written where it stands, and whole columns at once: logits are as wide as the vocabulary.
    """
    at = torch.where(columns < 0, into.shape[1] - 1, columns).to(into.device)
    rows = torch.arange(len(at), device=into.device)[:, None]
    into[rows, at] = new
    return into[:, :-1]

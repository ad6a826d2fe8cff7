"""The standardising of encoder tokens, with which every connector begins."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palscope.encoders._base import length_mask


class Standard(nn.Module):
    """Standardises the tokens of one encoder by a mean and a deviation for each dimension.

    `mean` and `deviation` are buffers measured over the training set: without them (or with a
    per-token norm) a small frozen decoder learnt far worse in trials.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def forward(
        self, states: Float[Tensor, "clips tokens width"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """Standardised states; zeros past a clip's length, whatever stands there."""
        return self.standard(states, lengths)

    def standard(
        self, states: Float[Tensor, "clips tokens width"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """What `forward` returns here, and what a `Resampler` begins with."""
        standard = (states - self.mean) / self.deviation
        # where, not a product: padding may hold anything, NaN too.
        return torch.where(length_mask(lengths, states.shape[1])[..., None], standard, 0.0)

    @torch.no_grad()
    def set_statistics(
        self, mean: Float[Tensor, " width"], deviation: Float[Tensor, " width"]
    ) -> None:
        """Set mean and deviation; of a dimension that never changes, it may be 0."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=1e-5))

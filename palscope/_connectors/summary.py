"""The summary stream: a strided convolution over frame tokens (PAL paper, section 3.3)."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn


class StridedSummary(nn.Module):
    """Every `ratio` frame tokens become one summary token; a last short group is filled with zeros.

    Standardised frames, zero-filled groups: zero is the training set's mean frame.
    """

    def __init__(self, inputs: int, outputs: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.conv = nn.Conv1d(inputs, outputs, kernel_size=ratio, stride=ratio)
        nn.init.normal_(self.conv.weight, std=1 / math.sqrt(inputs * ratio))
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(
        self, frames: Float[Tensor, "clips frames inputs"]
    ) -> Float[Tensor, "clips summaries outputs"]:
        """Summary tokens of frame tokens, zeros past a clip's end."""
        fill = -frames.shape[1] % self.ratio
        return self.conv(nn.functional.pad(frames, (0, 0, 0, fill)).transpose(1, 2)).transpose(1, 2)

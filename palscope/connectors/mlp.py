"""Multi-layer perceptrons, and the pooling of encoder tokens into frame tokens."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Pool = Literal["mean", "stack"]

GELU_RMS = 0.65
"""Root mean square of gelu(x) for x ~ N(0, 1)."""


class MLP(nn.Sequential):
    """Linear layers with GELU between them.

    Initialised so that standardised input gives output of root mean square `output_rms`: audio that
    enters a frozen decoder must start at the scale of what the decoder is used to.
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, depth: int, output_rms: float
    ) -> None:
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        parts: list[nn.Module] = []
        for index, (a, b) in enumerate(pairwise(widths)):
            linear = nn.Linear(a, b)
            last = index == depth - 1
            input_rms = 1.0 if index == 0 else GELU_RMS
            output = output_rms if last else 1.0
            nn.init.normal_(linear.weight, std=output / (input_rms * math.sqrt(a)))
            nn.init.zeros_(linear.bias)
            parts.append(linear)
            if not last:
                parts.append(nn.GELU())
        super().__init__(*parts)


class FramePool(nn.Module):
    """Standardises encoder features and pools `frames_per_token` of them into a frame token.

    `mean` and `deviation` are buffers measured over the training set, a value a dimension: without
    them (or with a per-token norm) a small frozen decoder learnt far worse in trials. Pooling
    averages over a clip's own tokens alone, or stacks them, a missing one as zeros.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, frames_per_token: int, pool: Pool) -> None:
        super().__init__()
        self.frames_per_token = frames_per_token
        self.pool: Pool = pool
        self.width = width * (frames_per_token if pool == "stack" else 1)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def tokens(self, encoder_tokens: int) -> int:
        """Number of frame tokens of a clip with `encoder_tokens` encoder tokens."""
        return -(-encoder_tokens // self.frames_per_token)

    def forward(
        self, states: Float[Tensor, "clips tokens width"], lengths: Int[Tensor, "clips"]
    ) -> Float[Tensor, "clips frames pooled"]:
        """Frame tokens of clips of `lengths` encoder tokens; zeros past a clip's end."""
        clips, tokens, width = states.shape
        k = self.frames_per_token
        real = torch.arange(tokens, device=states.device) < lengths[:, None]
        standard = (states - self.mean) / self.deviation
        # where, not a product: padding may hold anything, NaN too.
        standard = torch.where(real[..., None], standard, 0.0)
        fill = -tokens % k
        standard = nn.functional.pad(standard, (0, 0, 0, fill)).view(clips, -1, k, width)
        if self.pool == "stack":
            return standard.flatten(2)
        counts = nn.functional.pad(real, (0, fill)).view(clips, -1, k).sum(-1).clamp(min=1)
        return standard.sum(2) / counts[..., None]

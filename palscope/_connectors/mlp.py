"""Multi-layer perceptrons."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

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

"""Cross-attention inside connectors, whose pattern is made only where it is hooked."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from palscope._hooked import is_hooked


def attend(
    query: Float[Tensor, "rows heads queries d_head"],
    key: Float[Tensor, "rows heads places d_head"],
    value: Float[Tensor, "rows heads places d_head"],
    seen: Bool[Tensor, "rows 1 #queries places"],
    tap: nn.Module,
) -> Float[Tensor, "rows heads queries d_head"]:
    """Attention of each query to the places it sees, zero where it sees none.

    Args:
        tap: gets the pattern `[rows, heads, queries, places]` where it is hooked, and what
            it returns is used. Else attention is fused; the two differ by rounding alone.
    """
    some = seen.any(-1, keepdim=True)
    seen = seen | ~some  # kernels differ in what they make of a softmax over nothing
    if is_hooked(tap):
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        scores = scores.float().masked_fill(~seen, -torch.inf)
        pattern = torch.where(some, scores.softmax(-1), 0.0).to(query.dtype)
        return tap(pattern) @ value
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return torch.where(some, mixed, 0.0)

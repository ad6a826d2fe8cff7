"""What attention kernels take as a mask, made of which keys each token may read."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from palscope.errors import HookError, PalscopeError


def in_kind(
    visible: Bool[Tensor, "batch heads queries keys"],
    implementation: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """A mask in the form that an attention implementation takes, on the device of its layer.

    Args:
        visible: `heads` may be 1, for all of them.
        implementation: Hugging Face's name of it.
        dtype: of the states.

    Raises:
        PalscopeError: the implementation takes no mask of palscope's kind.
    """
    if implementation == "sdpa":
        # A boolean mask would be made into this one, and kept for the gradient, in every layer.
        return _added(visible, dtype, float("-inf")).to(device)
    if implementation == "eager":
        return _added(visible, dtype, torch.finfo(dtype).min).to(device)
    if implementation == "flex_attention":
        return _of_blocks(visible.to(device))
    raise PalscopeError(
        f"attention implementation {implementation!r} takes no mask of palscope's kind; load "
        "the model with attn_implementation='sdpa', 'eager' or 'flex_attention'."
    )


def _added(visible: Tensor, dtype: torch.dtype, closed: float) -> Tensor:
    """What is added to scores: `closed` where a query does not see a key."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, closed)


def _of_blocks(visible: Bool[Tensor, "batch heads queries keys"]) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    heads = visible.shape[1]

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible[b, h if heads > 1 else 0, q, k]

    return create_block_mask(
        seen,
        visible.shape[0],
        heads if heads > 1 else None,
        *visible.shape[2:],
        device=str(visible.device),
    )


def without(
    visible: Bool[Tensor, "batch queries keys"],
    cut: Bool[Tensor, "batch heads queries keys"],
    queries: Int[Tensor, "batch queries"],
    layer: int,
) -> Bool[Tensor, "batch heads queries keys"]:
    """`visible` less the edges of `cut`.

    Args:
        queries: the column of each query, -1 where no token stands.
        layer: where, for the message.

    Raises:
        HookError: a token is left with no key.
    """
    left = visible[:, None] & ~cut
    if bool((~left.any(-1) & (queries >= 0)[:, None]).any()):
        raise HookError(
            f"layer {layer}: the knockout leaves a token nothing to read; let it keep its own key."
        )
    # A place without a token reads everything (TokenLayout.visible), cut or not.
    return left | (queries < 0)[:, None, :, None]


def is_causal(visible: Bool[Tensor, "batch queries keys"]) -> bool:
    """Whether `visible` is what scaled_dot_product_attention does when it gets no mask."""
    queries, keys = visible.shape[1:]
    if queries != keys:
        return False
    return torch.equal(visible, torch.ones_like(visible).tril())

"""Within a layer, which of its tokens the feed-forward network runs on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palscope._models.gathering import gathered, spread
from palscope._routing import LayerColumns


@contextmanager
def feeding(layer: Any, columns: LayerColumns) -> Generator[None, None, None]:
    """Within, `layer.mlp` runs on the tokens that are fed alone; the others that run get 0.

    Zero is what leaves the residual stream unchanged in every family, post-norms included.
    """
    if columns.feeds_all:
        yield
        return
    running, fed = columns.running, columns.fed
    # Both are in order, so a column's place is how many stand before it.
    places = torch.searchsorted(running.contiguous(), fed.clamp(min=0).contiguous())
    places = torch.where(fed < 0, -1, places)

    def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (gathered(args[0], places), *args[1:])

    def after(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return spread(out, places, running.shape[1])

    mlp: nn.Module = layer.mlp
    handles = [mlp.register_forward_pre_hook(before), mlp.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

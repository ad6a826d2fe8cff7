"""The cache of a prompt that goes on for hours: it grows in place, and goes back to a mark."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._models.cache import AudioCache, GrowingLayer
from palscope._routing import LayerColumns, TokenLayout
from palscope.errors import PalscopeError


class StreamLayer(GrowingLayer):
    """A growing layer to which whole pieces of sound are added, perhaps on another device.

    A buffer that is full is replaced by one with a quarter more than is needed, so all pieces
    together are copied in a time in proportion to their length.

    Args:
        store: where keys and values are kept; by default where they are computed.
    """

    def __init__(self, store: torch.device | None = None) -> None:
        super().__init__()
        self.store = store

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "batch heads all dim"], Float[Tensor, "batch heads all dim"]]:
        """Add keys and values, and give all of them where the new ones are.

        From a store on another device that is a copy of the layer, which lives as long as the
        caller uses it.
        """
        device = key_states.device
        store = self.store or device
        keys, values = super().update(key_states.to(store), value_states.to(store))
        return keys.to(device), values.to(device)

    def _spare(self, new: int, after: int) -> int:
        return after // 4


class Savepoint(NamedTuple):
    """How far a cache was filled, to go back to."""

    lengths: tuple[int, ...]
    layout: TokenLayout | None
    columns: list[LayerColumns]


class StreamCache(AudioCache):
    """An `AudioCache` of one prompt that grows in place, and goes back to a mark.

    Args:
        store: device that keys and values are kept on; by default where they are computed.
    """

    def __init__(self, store: torch.device | None = None) -> None:
        super().__init__()
        make: Any = functools.partial(StreamLayer, store)
        self.layer_class_to_replicate = make

    def mark(self) -> Savepoint:
        """The present state. It costs nothing, and stands until the cache goes back further."""
        return Savepoint(self._lengths(), self.layout, self.columns)

    def back_to(self, mark: Savepoint) -> None:
        """Take off what was added since `mark`."""
        layers: Any = self.layers
        held = (*mark.lengths, *[0] * len(layers))  # a layer may have had no token then
        for layer, length, now in zip(layers, held, self._lengths(), strict=False):
            layer.crop(length - now)
        self.layout, self.columns = mark.layout, mark.columns

    def _lengths(self) -> tuple[int, ...]:
        layers: Any = self.layers
        return tuple(layer.get_seq_length() for layer in layers)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Not supported: what is heard later would have to be written to every copy."""
        raise PalscopeError("a stream's cache has one row; ask one question at a time.")

    def reorder_cache(self, beam_idx: Any) -> None:
        """Not supported, as beams are several copies of a row."""
        raise PalscopeError("a stream's cache has one row; answers to it take no beams.")

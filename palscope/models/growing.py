"""A cache that grows in place, and goes back to what it was: for prompts that go on for hours."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from palscope.errors import PalscopeError
from palscope.models.cache import AudioCache
from palscope.routing import LayerColumns, TokenLayout

_SPARE = 0.25
"""What a buffer that is full gets beyond what it must hold, as a share of that."""


class GrowingLayer(DynamicLayer):
    """A layer's keys and values in a buffer with room behind them, into which new ones are written.

    Where `DynamicLayer` copies all it holds at each step, this one does so only when the buffer is
    full, and then makes it larger by a quarter: all steps of a prompt together take a time in
    proportion to its length. It is for one run at a time, without gradients.

    Args:
        store: where the buffer is kept; by default, where the first keys are computed.
    """

    def __init__(self, store: torch.device | None = None) -> None:
        super().__init__()
        self._store = store
        self._buffers: tuple[Tensor, ...] = ()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Empty buffers of the shape of the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = tuple(
            self._empty(states, states.shape[2]) for states in (key_states, value_states)
        )
        self.keys, self.values = (buffer[:, :, :0] for buffer in self._buffers)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "batch heads all dim"], Float[Tensor, "batch heads all dim"]]:
        """Write new keys and values behind those held, and give all of them, where they are used.

        From a store on another device this is a copy of the whole layer, which lives as long as the
        caller uses it.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        length = held + key_states.shape[2]
        if length > self._buffers[0].shape[2]:
            self._buffers = tuple(self._larger(buffer, held, length) for buffer in self._buffers)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, held:length] = new
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)
        return self.keys.to(key_states.device), self.values.to(value_states.device)

    def get_seq_length(self) -> int:
        """How many tokens it holds."""
        return self.keys.shape[2] if self.is_initialized and self.keys is not None else 0

    def _larger(self, buffer: Tensor, held: int, length: int) -> Tensor:
        larger = self._empty(buffer, length + int(length * _SPARE))
        larger[:, :, :held] = buffer[:, :, :held]
        return larger

    def _empty(self, like: Tensor, length: int) -> Tensor:
        store = self._store or like.device
        # Pinned memory is what a GPU copies from at full speed.
        pinned = store.type == "cpu" and torch.device(self.device or "cpu").type == "cuda"
        shape = (*like.shape[:2], length, like.shape[3])
        return torch.empty(shape, dtype=like.dtype, device=store, pin_memory=pinned)


class Mark(NamedTuple):
    """How far a cache was filled, to go back to."""

    lengths: tuple[int, ...]
    layout: TokenLayout | None
    columns: list[LayerColumns]


class GrowingCache(AudioCache):
    """An `AudioCache` of one prompt that grows in place, and goes back to a mark.

    Args:
        store: device that keys and values are kept on; by default where they are computed.
    """

    def __init__(self, store: torch.device | None = None) -> None:
        super().__init__()
        make: Any = functools.partial(GrowingLayer, store)
        self.layer_class_to_replicate = make

    def mark(self) -> Mark:
        """The present state. It costs nothing, and stands until the cache goes back further."""
        return Mark(self._lengths(), self.layout, self.columns)

    def back_to(self, mark: Mark) -> None:
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

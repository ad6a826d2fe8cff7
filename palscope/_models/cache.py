"""Caches of keys and values in which audio stands before the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import DynamicCache, DynamicLayer

from palscope._models.stamps import Stamp
from palscope._routing import LayerColumns, Route, TokenLayout
from palscope.errors import PalscopeError


class AudioCache(DynamicCache):
    """A key-value cache that knows which token stands in which of its columns.

    LAL seen the other way is a cache prefilled with audio: a layer's entry is its `keys` tokens,
    then the tokens of its sequence. Layers may differ in length. It holds whole layers even where
    the decoder slides a window; the mask cuts that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer_class_to_replicate = GrowingLayer
        self.layout: TokenLayout | None = None
        self.columns: list[LayerColumns] = []
        self.route: Route | None = None
        self.crossed: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values of the audio that a layer's second attention reads, by layer."""
        self.made_of: Stamp | None = None
        """The weights it was made with."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of `input_ids` seen so far, which is what generation counts in."""
        return 0 if self.layout is None else self.layout.width

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held, those of audio included."""
        layers: Any = self.layers
        held = [layer for layer in layers if layer.is_initialized]
        words = sum(x.nbytes for layer in held for x in (layer.keys, layer.values))
        return words + sum(x.nbytes for pair in self.crossed.values() for x in pair)

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: the layout does not go back."""
        raise PalscopeError("an AudioCache cannot be cropped; run the prompt again instead.")

    def batch_select_indices(self, *args: Any, **kwargs: Any) -> None:
        """Not supported: the layout keeps its rows."""
        raise PalscopeError("an AudioCache keeps its rows; run the chosen rows again instead.")

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row, to try several continuations of one prompt."""
        super().batch_repeat_interleave(repeats)
        self.crossed = {
            layer: (keys.repeat_interleave(repeats, 0), values.repeat_interleave(repeats, 0))
            for layer, (keys, values) in self.crossed.items()
        }
        if self.layout is not None:
            self.layout = self.layout.repeated(repeats)
            self.columns = [columns.repeated(repeats) for columns in self.columns]


class GrowingLayer(DynamicLayer):
    """A layer whose keys and values stand in buffers with room for more.

    Hugging Face's layer copies everything that it holds for every word that joins it; over long
    audio that costs more than reading it. Here a word is written into the room behind, which a
    sixteenth of what is held, or `_ROOM` words, is kept for once decoding begins.
    """

    _ROOM = 32

    _rooms: dict[str, Tensor]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin empty."""
        super().lazy_initialization(key_states, value_states)
        self._rooms = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The keys and values held, with these behind them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        keys = self.keys = self._appended("keys", self.keys, key_states)
        values = self.values = self._appended("values", self.values, value_states)
        return keys, values

    def _appended(self, name: str, held: Tensor, new: Tensor) -> Tensor:
        if not held.numel():
            return new
        if torch.is_grad_enabled() and (held.requires_grad or new.requires_grad):
            return torch.cat([held, new], 2)  # what was read must not change under a gradient
        before, after = held.shape[2], held.shape[2] + new.shape[2]
        room = self._rooms.get(name)
        if room is None or not _holds(room, held) or room.shape[2] < after:
            length = after + self._spare(new.shape[2], after)
            room = new.new_empty(*new.shape[:2], length, new.shape[3])
            room[:, :, :before] = held
            self._rooms[name] = room
        room[:, :, before:after] = new
        return room[:, :, :after]

    def _spare(self, new: int, after: int) -> int:
        """Room behind `after` tokens, of which `new` were the last to come."""
        return max(self._ROOM, after // 16) if new == 1 else 0


def _holds(room: Tensor, held: Tensor) -> bool:
    """Whether `held` stands at the beginning of `room`, where more may be written."""
    frozen = room.is_inference() and not torch.is_inference_mode_enabled()
    return held.data_ptr() == room.data_ptr() and not frozen


class PassingMemory:
    """Stands in for a cache where none is kept: puts a layer's audio before its text."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys, self._values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The layer's audio keys and values, followed by its text's."""
        return torch.cat([self._keys, key_states], 2), torch.cat([self._values, value_states], 2)


class Crossed(NamedTuple):
    """What a layer's second attention reads.

    A query that is left nothing to read (all of it is cut) has no softmax. It reads an empty key,
    `-1` among the columns, whose value is zero: the head then writes nothing.
    """

    keys: Tensor
    values: Tensor
    mask: Any
    columns: Int[Tensor, "batch crossed"]

    @classmethod
    def of(
        cls,
        keys: Tensor,
        values: Tensor,
        mask: Any,
        columns: Int[Tensor, "batch crossed"],
        nothing: bool,
    ) -> Crossed:
        """With an empty key behind where `nothing` says so, as `mask` has it."""
        if nothing:
            keys, values = (functional.pad(each, (0, 0, 0, 1)) for each in (keys, values))
            columns = functional.pad(columns, (0, 1), value=-1)
        return cls(keys, values, mask, columns)


class DeferredMemory:
    """Makes a layer's audio keys and values when its attention asks for them, not before.

    Under FSDP a layer's weights are whole only while the layer itself runs.
    """

    def __init__(
        self, make: Callable[[], tuple[Tensor, Tensor] | None], cache: AudioCache | None
    ) -> None:
        self._make, self._cache = make, cache

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """As `PassingMemory` or, where there is one, the cache."""
        memory = self._make()
        if self._cache is None:
            if memory is None:
                return key_states, value_states
            return PassingMemory(*memory).update(key_states, value_states, layer_idx)
        if memory is not None:
            self._cache.update(*memory, layer_idx)
        return self._cache.update(key_states, value_states, layer_idx, *args, **kwargs)

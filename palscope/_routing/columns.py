"""Which columns of a layout meet in one layer: keys, sequence, and what is fed forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from palscope._queued import queued
from palscope._routing.on_host import OnHost, on_both


@dataclass(frozen=True)
class LayerColumns(OnHost):
    """The layout's columns that meet in one layer; -1 marks a place that holds no token.

    `memory` are the audio tokens that are keys only; `running` the tokens of the layer's sequence,
    in order of position and aligned to the right, so that the last column is each row's last token.
    A layer's keys are `memory` followed by `running`. `fed` are those of `running` that go through
    the feed-forward network, in the same order: all but streams at level `attend`. Where it is all,
    `fed` and `running` are one object. `crossed` are the keys of a second attention, of an
    encoder–decoder's layer: audio that the layer reads apart from its sequence.
    """

    memory: Int[Tensor, "batch memory"]
    running: Int[Tensor, "batch running"]
    fed: Int[Tensor, "batch fed"]
    crossed: Int[Tensor, "batch crossed"]

    @property
    def keys(self) -> Int[Tensor, "batch keys"]:
        """Columns of the layer's keys: the axis of its attention pattern."""
        return torch.cat([self.memory, self.running], dim=1)

    @property
    def audio(self) -> Int[Tensor, "batch audio"]:
        """Columns of the audio that is only read, in either attention."""
        return torch.cat([self.memory, self.crossed], dim=1)

    @property
    def feeds_all(self) -> bool:
        """Whether all of the layer's sequence goes through the feed-forward network."""
        return self.fed is self.running

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.running.device

    def to(self, device: torch.device) -> LayerColumns:
        """These columns, which are on the CPU, on `device`."""
        if device == self.device:
            return self
        return self._moved(lambda columns: queued(columns, device)).known_as(self)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> LayerColumns:
        """With every tensor moved, or its columns counted otherwise."""
        made = {each.name: move(getattr(self, each.name)) for each in fields(self)}
        if self.feeds_all:
            made["fed"] = made["running"]
        return replace(self, **made)

    def repeated(self, times: int) -> LayerColumns:
        """These columns with every row repeated `times`."""

        def repeat(columns: Tensor) -> Tensor:
            return columns.repeat_interleave(times, 0)

        return on_both(partial(LayerColumns._moved, move=repeat), self)

    def behind(self, held: LayerColumns, width: int) -> ContinuedColumns:
        """These columns, counted from a cached prefix's end on, behind those that it holds.

        Args:
            held: the layer's columns in the prefix.
            width: all of the prefix's columns.
        """

        def behind(columns: LayerColumns, held: LayerColumns) -> ContinuedColumns:
            later = columns._moved(lambda each: torch.where(each < 0, -1, each + width))
            crossed = torch.cat([held.crossed, later.crossed], dim=1)
            return ContinuedColumns(later.memory, later.running, later.fed, crossed, held.keys)

        return on_both(behind, self, held)

    def reading(self, keys: Int[Tensor, "batch keys"]) -> BorrowedColumns:
        """These columns with other `keys`: another layer's, or those that are crossed."""
        return BorrowedColumns(self.memory, self.running, self.fed, self.crossed, keys)


@dataclass(frozen=True)
class ContinuedColumns(LayerColumns):
    """The new columns of a layer that goes on from a cached prefix, whose keys `past` are."""

    past: Int[Tensor, "batch past"]

    @property
    def keys(self) -> Int[Tensor, "batch keys"]:
        """Columns of the layer's keys: the prefix's, then the new memory and sequence."""
        return torch.cat([self.past, self.memory, self.running], dim=1)


@dataclass(frozen=True)
class BorrowedColumns(LayerColumns):
    """The columns of an attention whose keys are not of the layer's own sequence.

    They were made in another layer, in which other tokens run; or they are what is crossed.
    """

    borrowed: Int[Tensor, "batch keys"]

    @property
    def keys(self) -> Int[Tensor, "batch keys"]:
        """Columns of these keys; -1 where what stands there is absent in this layer."""
        return self.borrowed

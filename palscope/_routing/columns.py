"""Which columns of a layout meet in one layer: keys, sequence, and what is fed forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from palscope._queued import queued


@dataclass(frozen=True)
class LayerColumns:
    """The layout's columns that meet in one layer; -1 marks a place that holds no token.

    `memory` are the audio tokens that are keys only; `running` the tokens of the layer's sequence,
    in order of position and aligned to the right, so that the last column is each row's last token.
    A layer's keys are `memory` followed by `running`. `fed` are those of `running` that go through
    the feed-forward network, in the same order: all but streams at level `attend`. Where it is all,
    `fed` and `running` are one object.
    """

    memory: Int[Tensor, "batch memory"]
    running: Int[Tensor, "batch running"]
    fed: Int[Tensor, "batch fed"]

    @property
    def keys(self) -> Int[Tensor, "batch keys"]:
        """Columns of the layer's keys: the axis of its attention pattern."""
        return torch.cat([self.memory, self.running], dim=1)

    @property
    def feeds_all(self) -> bool:
        """Whether all of the layer's sequence goes through the feed-forward network."""
        return self.fed is self.running

    @property
    def on_host(self) -> LayerColumns:
        """These columns on the CPU: reading them there makes no accelerator wait."""
        return self if self.running.device.type == "cpu" else self._copy_on_host

    @cached_property
    def _copy_on_host(self) -> LayerColumns:
        return self._changed(lambda columns: columns.cpu())

    def to(self, device: torch.device) -> LayerColumns:
        """These columns, which are on the CPU, on `device`."""
        if device == self.running.device:
            return self
        return self._changed(lambda columns: queued(columns, device)).known_as(self)

    def known_as(self, here: LayerColumns) -> LayerColumns:
        """These columns, of which `here` is the copy on the CPU."""
        self.__dict__["_copy_on_host"] = here
        return self

    def _changed(self, change: Callable[[Tensor], Tensor]) -> LayerColumns:
        """With every tensor changed alike."""
        made = {each.name: change(getattr(self, each.name)) for each in fields(self)}
        if self.feeds_all:
            made["fed"] = made["running"]
        return replace(self, **made)

    def repeated(self, times: int) -> LayerColumns:
        """These columns with every row repeated `times`."""
        made = self._changed(lambda columns: columns.repeat_interleave(times, 0))
        here = self.on_host
        return made if here is self else made.known_as(here.repeated(times))

    def behind(self, held: LayerColumns, width: int) -> ContinuedColumns:
        """These columns, counted from a cached prefix's end on, behind those that it holds.

        Args:
            held: the layer's columns in the prefix.
            width: all of the prefix's columns.
        """
        later = self._changed(lambda columns: torch.where(columns < 0, -1, columns + width))
        made = ContinuedColumns(later.memory, later.running, later.fed, held.keys)
        if (here := self.on_host) is not self:
            made.known_as(here.behind(held.on_host, width))
        return made

    def reading(self, keys: Int[Tensor, "batch keys"]) -> BorrowedColumns:
        """These columns in a layer that has no keys of its own and reads another's `keys`."""
        return BorrowedColumns(self.memory, self.running, self.fed, keys)


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
    """The columns of a layer whose keys were made in another one, in which other tokens run."""

    borrowed: Int[Tensor, "batch keys"]

    @property
    def keys(self) -> Int[Tensor, "batch keys"]:
        """Columns of the other layer's keys; -1 where what stands there is absent in this one."""
        return self.borrowed

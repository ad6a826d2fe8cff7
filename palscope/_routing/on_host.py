"""What is laid out for a device and read on the CPU: the copy there is kept, so nothing waits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound="OnHost")


class OnHost:
    """Tensors on a device, with a copy of them on the CPU."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where these are."""

    @abstractmethod
    def _moved(self: Kind, move: Callable[[Tensor], Tensor]) -> Kind:
        """With the tensors elsewhere."""

    @property
    def on_host(self: Kind) -> Kind:
        """This on the CPU: reading it there makes no accelerator wait."""
        return self if self.device.type == "cpu" else self._copy_on_host

    @cached_property
    def _copy_on_host(self) -> Any:
        return self._moved(lambda tensor: tensor.cpu())

    def known_as(self: Kind, here: Kind) -> Kind:
        """This, of which `here` is the copy on the CPU."""
        self.__dict__["_copy_on_host"] = here
        return self


def on_both(make: Callable[..., Kind], *parts: OnHost) -> Kind:
    """What `make` makes of `parts`, all on one device; its copy on the CPU is made of theirs."""
    made = make(*parts)
    if made.device.type == "cpu":
        return made
    return made.known_as(make(*(part.on_host for part in parts)))

"""What hooks, interventions and measures ask of whatever encodes sound."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from palscope.audio._timegrid import TimeGrid


@dataclass(frozen=True)
class Component:
    """A part of an encoder that can be hooked: it gets a hook point before and one behind.

    Attributes:
        path: of the submodule, from what names it or from the component that holds this one.
        each: the submodule is a list, and every item of it is one, numbered from 0.
        parts: components inside, by name.
        pattern: it is attention that hands its pattern to a module of its own, `pattern`.
    """

    path: str
    each: bool = False
    parts: dict[str, Component] = field(default_factory=dict[str, "Component"])
    pattern: bool = False

    def within(self, path: str) -> Component:
        """This part as named from what holds the module `path`."""
        return replace(self, path=f"{path}.{self.path}")


class Block(NamedTuple):
    """A layer of an encoder as a place that can be addressed by seconds.

    `name`: of its component, `blocks.3`; `grid`: of the tokens that leave it; `order`: places, in
    the layer's tensor `[clips, places, width]`, of a window's tokens in the grid's order. None
    where, in the tensor read row by row less its last dimension, token `i` is number `i`.
    """

    name: str
    grid: TimeGrid
    order: Int[Tensor, " tokens"] | None = None


class Passing(NamedTuple):
    """What an encoder's modules are being called with, for hooks that must find tokens there.

    In a tensor that passes, read row by row less its last dimension, the clips' tokens stand one
    clip behind the other, with as many places for each.

    `clips`: their numbers in the call; `start`: second of these clips at which the tokens begin;
    `lengths`: of all clips of the call, in feature frames.
    """

    clips: tuple[int, ...]
    start: float
    lengths: tuple[int, ...]


class Tower(Protocol):
    """An `Encoder`, or the audio tower of a published model.

    Attributes:
        passing: while its modules run, what they are called with.
    """

    passing: Passing | None

    @property
    def a_call_a_clip(self) -> bool:
        """Whether what reads the output is called once a clip too, while the clip passes."""
        ...

    @property
    def kind(self) -> str:
        """Its registered name, or its class."""
        ...

    @property
    def grid(self) -> TimeGrid:
        """Which seconds a token that leaves it stands for."""
        ...

    @property
    def window(self) -> float:
        """Feature frames of the longest sound that is encoded at once."""
        ...

    @property
    def floor_db(self) -> float | None:
        """As `EncoderConfig.floor_db`."""
        ...

    @property
    def parts(self) -> tuple[Tower, ...]:
        """The encoders that it consists of: itself, where it is but one."""
        ...

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What stands before the names of each part's components; nothing where it is but one."""
        ...

    @property
    def mel_hook(self) -> str | None:
        """Hook point at which features pass; None where there is none that can be addressed."""
        ...

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Layers that can be addressed by seconds, bottom first."""
        ...

    def bin_hz(self) -> Float[np.ndarray, " bins"] | None:
        """The centre of each row of the features, in Hz; None where they have none."""
        ...

    def blank(self) -> np.ndarray:
        """A short clip of nothing, as the processor takes it."""
        ...

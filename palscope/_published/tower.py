"""The audio tower of a published model, as interventions and measures address encoders."""

from __future__ import annotations

import math

import numpy as np

from palscope._published.family import PublishedFamily
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._tower import Block, Passing


class PublishedTower:
    """What is known of a tower beside its modules: names, time grids, how it is called.

    It is called once a clip, in the clips' order, with all of the clip's windows.

    Attributes:
        passing: while it is called, with which clip.
    """

    prefixes = ("",)
    mel_hook = "features.hook_in"

    def __init__(self, family: PublishedFamily) -> None:
        self._family = family
        self.passing: Passing | None = None

    @property
    def a_call_a_clip(self) -> bool:
        """Whether its projector is; an encoder–decoder has none, and reads all clips together."""
        return not self._family.crosses

    @property
    def parts(self) -> tuple[PublishedTower, ...]:
        """Itself."""
        return (self,)

    @property
    def kind(self) -> str:
        """The published class."""
        return self._family.architecture

    @property
    def grid(self) -> TimeGrid:
        """Of the tokens that enter the projector."""
        return self._family.tower_grid

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Layers that can be addressed by seconds, bottom first."""
        return self._family.tower_layers()

    @property
    def floor_db(self) -> float | None:
        """As `EncoderConfig.floor_db`."""
        return self._family.floor_db

    @property
    def window(self) -> float:
        """Feature frames of the longest sound that is encoded at once: a clip is, of any length."""
        return math.inf

    def bin_hz(self) -> None:
        """Not known: the front end is the checkpoint's own."""

    def blank(self) -> np.ndarray:
        """A second of silence, as the processor takes it."""
        return np.zeros(self._family.sample_rate, dtype=np.float32)

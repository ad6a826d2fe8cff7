"""Rotary angles of the columns that are new in a pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from palscope._models.families import rotary, rotary_kind
from palscope._models.gathering import counted_behind, gathered

Turn = tuple[Float[Tensor, "batch columns half"], Float[Tensor, "batch columns half"]]
"""Cosines and sines."""


@dataclass
class Angles:
    """Cosines and sines by kind of layer, made once for the layers that share them.

    Attributes:
        decoder: the Hugging Face decoder.
        position: position ids of the new columns.
        held: how many columns a cached prefix holds before them.
    """

    decoder: Any
    position: Int[Tensor, "batch new"]
    held: int
    _of_kind: dict[str, Turn] = field(default_factory=dict[str, Turn])
    _at: dict[tuple[str, int], tuple[Tensor, Turn]] = field(
        default_factory=dict[tuple[str, int], tuple[Tensor, Turn]]
    )

    def at(self, index: int, hidden: Tensor, columns: Int[Tensor, "batch columns"]) -> Turn:
        """Those of a layer at `columns` of the layout, in the type and place of `hidden`."""
        kind = rotary_kind(self.decoder.config, index)
        if kind not in self._of_kind:
            self._of_kind[kind] = rotary(self.decoder, hidden, self.position, index)
        # Layers share their columns, by identity, and so their angles.
        key = (kind, id(columns))
        if key not in self._at:
            places = counted_behind(columns, self.held)
            cos, sin = (gathered(each, places) for each in self._of_kind[kind])
            self._at[key] = (columns, (cos, sin))
        return self._at[key][1]

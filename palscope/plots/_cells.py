"""What a figure shows as colours: cells of numbers, and spectrograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from typing_extensions import Self

from palscope.plots._grammar import Axis, Reach
from palscope.plots._spectrogram import MelImage


@dataclass(frozen=True, eq=False)
class Heat:
    """A number a cell, as colours. Heats of one label share a scale, wherever in the figure.

    Attributes:
        values: `[rows, columns]`; NaN is blank.
        x: centres or categories, one a column; or edges, one more.
        y: the same of the rows, upwards.
        label: what is measured, with its unit.
        n: of how many clips or pairs each number is the mean; 1 where it is no mean.
        signed: the scale lies about 0.
        adds_to: what the cells of the whole table add up to; None where a sum means nothing, as of
            effects that overlap. The title of the panel says the sum only where there is one.
        hover: what is said of each cell, in place of its x and y.
    """

    values: Any
    x: Any
    y: Any
    label: str
    n: Any = 1
    signed: bool = False
    adds_to: float | None = None
    hover: np.ndarray | None = None

    tight: ClassVar = (True, True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values, dtype=float))
        object.__setattr__(self, "n", np.broadcast_to(np.asarray(self.n), self.values.shape))
        for axis, (values, cells) in enumerate(
            zip((self.y, self.x), self.values.shape, strict=True)
        ):
            if len(values) not in (cells, cells + 1):
                raise ValueError(
                    f"heat {self.label!r}: {len(values)} places for {cells} "
                    f"{('rows', 'columns')[axis]}; give one each, or the edges."
                )

    @classmethod
    def of(cls, rows: Any, x: str, y: str, value: str, label: str, **further: Any) -> Self:
        """From a table with a row a cell; cells without a row are blank.

        Names keep the order of the table, or of their categories; whole numbers are in order and
        without gaps. A column `n` says of how many each number is the mean.

        Raises:
            ValueError: a cell has several rows.
        """
        down, along = _every(rows[y]), _every(rows[x])
        values, *n = (
            rows.pivot(index=y, columns=x, values=each)
            .reindex(index=down, columns=along)
            .to_numpy(dtype=float)
            for each in (value, "n")
            if each in rows
        )
        return cls(values, along, down, label, *n, **further)

    @property
    def counts(self) -> set[int]:
        """Of how many the numbers are means; 1 where none is a mean."""
        return {int(each) for each in self.n[~np.isnan(self.values)]}

    @property
    def even(self) -> bool:
        """Whether its places are centres."""
        return (len(self.y), len(self.x)) == self.values.shape

    def edges(self, x: Axis, y: Axis) -> Reach:
        """The borders of the columns and of the rows."""
        rows, columns = self.values.shape
        return _edges(x.places(self.x), columns), _edges(y.places(self.y), rows)

    def reach(self, x: Axis, y: Axis) -> Reach:
        return self.edges(x, y)


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """The log-mel spectrogram of a clip; its y axis is `frequency_axis`."""

    image: MelImage

    tight: ClassVar = (True, True)
    counts: ClassVar[set[int]] = set()

    def edges(self, x: Axis, y: Axis) -> Reach:
        bins, columns = self.image.values.shape
        left = self.image.first - self.image.step / 2
        return left + self.image.step * np.arange(columns + 1), np.arange(bins + 1) - 0.5

    def reach(self, x: Axis, y: Axis) -> Reach:
        return self.edges(x, y)


def frequency_axis(image: MelImage) -> Axis:
    """The y axis of a spectrogram."""
    ticks = tuple(zip(image.ticks, image.tick_labels, strict=True))
    return Axis("frequency", "kHz", ticks=ticks)


def _edges(places: np.ndarray, cells: int) -> np.ndarray:
    if len(places) == cells + 1:
        return places
    step = places[1] - places[0] if cells > 1 else 1.0
    if cells > 1 and not np.allclose(np.diff(places), step):
        raise ValueError("a heat's cells are not equally wide; give their edges.")
    return np.append(places - step / 2, places[-1] + step / 2)


def _every(column: Any) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.cat.categories)
    names = list(column.dropna().unique())
    if pd.api.types.is_integer_dtype(column):
        return list(range(min(names), max(names) + 1)) if names else []
    return names

"""What a figure can hold: axes, and marks on them. `_figure` puts them together.

A description knows nothing of how it is drawn; the screen (plotly) and print (matplotlib) draw the
same one. What would mislead cannot be described: what cannot be seen is NaN and stays blank, a mean
says of how many it is, and a line breaks where that number changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from typing_extensions import Self

from palscope.plots._looks import PLAIN, REFERENCE, Look

Reach = tuple[np.ndarray, np.ndarray]
"""The x and the y of all that a mark draws."""


@dataclass(frozen=True)
class Axis:
    """An axis; panels of a figure that have the same one share its ends.

    Attributes:
        title: what is measured along it.
        unit: of the numbers, "" of a share or count.
        categories: names in place of numbers, from 0 up.
        limits: the ends; None takes what is drawn.
        integer: marked at whole numbers alone.
        ticks: (place, label) of its marks, in place of numbers.
    """

    title: str
    unit: str = ""
    categories: tuple[str, ...] = ()
    limits: tuple[float | None, float | None] = (None, None)
    integer: bool = False
    ticks: tuple[tuple[float, str], ...] = ()

    @property
    def label(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def places(self, values: Any) -> Float[np.ndarray, " values"]:
        """Where values stand: numbers where they are, categories at theirs.

        Raises:
            ValueError: a value is no category of this axis.
        """
        try:
            numbers = [
                self.categories.index(value) if isinstance(value, str) else value
                for value in values
            ]
        except ValueError:
            known = ", ".join(self.categories) or "none: it is an axis of numbers"
            unknown = [v for v in values if isinstance(v, str) and v not in self.categories]
            raise ValueError(
                f"{unknown[0]!r} is no category of the axis {self.title!r}; it has {known}."
            ) from None
        return np.asarray(numbers, dtype=float)

    def name(self, value: Any) -> str:
        """A value along the axis, as text."""
        if isinstance(value, str):
            return value
        if self.categories:
            return self.categories[round(value)]
        return f"{self.title} {value:.4g}" + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True, eq=False)
class Spread:
    """How sure each number of a series is.

    Attributes:
        low: lower ends of the intervals; NaN where there is none.
        high: upper ends.
        values: where there is none, each clip's value.
    """

    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    values: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, rows: Any, name: str = "") -> Spread | None:
        """From the columns `low`, `high` and `values` that `palscope.statistics` makes.

        Args:
            rows: a row a point.
            name: begins the columns' names (`NAME_low`), where they have one.
        """
        before = f"{name}_" if name else ""
        if f"{before}low" not in rows:
            return None
        values = rows.get(f"{before}values", [()] * len(rows))
        return cls(
            low=rows[f"{before}low"].to_numpy(dtype=float),
            high=rows[f"{before}high"].to_numpy(dtype=float),
            values=tuple(tuple(getattr(each, "numbers", ())) for each in values),
        )

    @property
    def known(self) -> np.ndarray:
        """Where there is an interval."""
        return ~(np.isnan(self.low) | np.isnan(self.high))

    def sides(self, middle: np.ndarray) -> np.ndarray:
        """How far it reaches below and above each number; NaN where there is none."""
        return np.clip([middle - self.low, self.high - middle], 0, None)

    def each(self, places: Any) -> Reach:
        """The place of each clip's value, and the values."""
        flat = [(p, v) for p, of in zip(places, self.values, strict=True) for v in of]
        return np.array([p for p, _ in flat]), np.array([v for _, v in flat])

    @property
    def reach(self) -> np.ndarray:
        """All numbers that are drawn."""
        return np.concatenate([self.low, self.high, self.each(self.low)[1]])


@dataclass(frozen=True, eq=False)
class _Series:
    """Numbers along x that have a name and a look.

    Attributes:
        x: numbers in order, or categories of the axis.
        y: a number each; NaN is blank.
        n: of how many clips or pairs each number is the mean; 1 where it is no mean.
        name: in the legend; "" keeps it out.
        look: of all points.
        spread: how sure the numbers are.
        hover: what is said of each point, in place of its x.
    """

    x: Any
    y: Any
    n: Any
    name: str = ""
    look: Look = PLAIN
    spread: Spread | None = None
    hover: tuple[str, ...] = ()

    tight: ClassVar = (False, False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", list(self.x))
        object.__setattr__(self, "y", np.asarray(self.y, dtype=float))
        object.__setattr__(self, "n", np.broadcast_to(np.asarray(self.n), self.y.shape))
        what = f"series {self.name!r}"
        if len(self.x) != len(self.y):
            raise ValueError(f"{what}: {len(self.x)} places, {len(self.y)} numbers.")
        if np.isinf(self.y).any():
            raise ValueError(f"{what}: a number is infinite; nothing can show it.")
        if (self.n[self.drawn] < 1).any():
            raise ValueError(f"{what}: a number that is drawn is a mean of none; say of how many.")
        if self.spread is not None and len(self.spread.low) != len(self.y):
            raise ValueError(f"{what}: {len(self.spread.low)} intervals, {len(self.y)} numbers.")

    @classmethod
    def of(
        cls,
        rows: Any,
        x: str,
        y: str = "mean",
        *,
        over: Any = None,
        spread: str = "",
        **further: Any,
    ) -> Self:
        """A series from rows with `n` and, if they have them, `low`, `high` and `values`.

        Args:
            rows: in order.
            x: the column along the axis.
            y: the column of numbers.
            over: the places along x that were measured, in order: those without a row are blank.
            spread: begins the names of the interval's columns, as in `Spread.of`.
            **further: name, look, hover.
        """
        if over is not None:
            rows = rows.set_index(x).reindex(over).rename_axis(x).reset_index()
            rows["n"] = rows["n"].fillna(0).astype(int)
        return cls(
            x=rows[x].tolist(),
            y=rows[y].to_numpy(dtype=float),
            n=rows["n"].to_numpy(),
            spread=Spread.of(rows, spread),
            **further,
        )

    @property
    def drawn(self) -> np.ndarray:
        """Which points are not blank."""
        return ~np.isnan(self.y)

    @property
    def counts(self) -> set[int]:
        """Of how many the numbers are means; 1 where none is a mean."""
        return {int(each) for each in self.n[self.drawn]}

    def reach(self, x: Axis, y: Axis) -> Reach:
        sure = np.zeros(0) if self.spread is None else self.spread.reach
        return x.places(self.x), np.concatenate([y.places(self.y), sure])


@dataclass(frozen=True, eq=False)
class Line(_Series):
    """Points joined in order, its interval a band.

    It breaks where a number is blank, and where the numbers on both sides are of different n.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(isinstance(each, str) for each in self.x):
            raise ValueError(f"line {self.name!r}: categories have no order; draw points or bars.")
        if (np.diff(np.asarray(self.x, dtype=float)) < 0).any():
            raise ValueError(f"line {self.name!r}: its points are not in order of x; sort them.")

    @property
    def pieces(self) -> list[slice]:
        """The stretches that are joined."""
        return _stretches(self.drawn, np.diff(self.n) != 0)

    @property
    def order(self) -> list[int | None]:
        """The points that are joined, in order; None where the line breaks."""
        order = [each for piece in self.pieces for each in (*range(piece.start, piece.stop), None)]
        return order[:-1]

    def along(self, of: Any, blank: Any = np.nan) -> list[Any]:
        """What belongs to the points that are joined, in order, `blank` where the line breaks."""
        return [blank if i is None else of[i] for i in self.order]

    @property
    def bands(self) -> list[slice]:
        """The stretches that have a band: of two points at least."""
        return [each for each in self._sure() if each.stop - each.start > 1]

    @property
    def alone(self) -> list[int]:
        """The points whose interval is a bar: a band would have no width."""
        return [each.start for each in self._sure() if each.stop - each.start == 1]

    def _sure(self) -> list[slice]:
        if self.spread is None:
            return []
        return _stretches(self.drawn & self.spread.known, np.diff(self.n) != 0)


@dataclass(frozen=True, eq=False)
class Points(_Series):
    """Marks that are not joined, their intervals bars.

    Attributes:
        x_spread: how sure the places along x are.
    """

    x_spread: Spread | None = None

    def reach(self, x: Axis, y: Axis) -> Reach:
        xs, ys = super().reach(x, y)
        return (xs if self.x_spread is None else np.concatenate([xs, self.x_spread.reach])), ys


@dataclass(frozen=True, eq=False)
class Bars(_Series):
    """Bars from 0; several of a panel stand beside each other at each category."""

    def reach(self, x: Axis, y: Axis) -> Reach:
        xs, ys = super().reach(x, y)
        return xs, np.append(ys, 0.0)


@dataclass(frozen=True, eq=False)
class Steps:
    """One number a token over its stretch, of one clip.

    Attributes:
        start: where each begins, in order.
        end: where each ends.
        y: a number each; NaN is blank.
        name: in the legend.
        look: of the line.
    """

    start: Any
    end: Any
    y: Any
    name: str = ""
    look: Look = PLAIN

    tight: ClassVar = (True, False)
    counts: ClassVar[set[int]] = set()

    @property
    def corners(self) -> tuple[list[float], list[float], list[str]]:
        """The line's x and y, NaN between tokens that do not meet, and each token's seconds."""
        x: list[float] = []
        y: list[float] = []
        said: list[str] = []
        for start, end, value in zip(self.start, self.end, self.y, strict=True):
            if x and abs(start - x[-1]) > 1e-9:
                x, y, said = [*x, np.nan], [*y, np.nan], [*said, ""]
            x, y = [*x, start, end], [*y, value, value]
            said += [f"{start:.2f} to {end:.2f} s"] * 2
        return x, y, said

    def reach(self, x: Axis, y: Axis) -> Reach:
        xs, ys, _ = self.corners
        return np.array(xs), np.array(ys)


@dataclass(frozen=True)
class Rule:
    """A line to compare with.

    Attributes:
        at: where it stands.
        name: in the legend; "" keeps it out.
        along: the axis that it runs along.
        ends: where on that axis it begins and ends; None is from side to side.
        look: of the line.
    """

    at: float
    name: str = ""
    along: Literal["x", "y"] = "x"
    ends: tuple[float, float] | None = None
    look: Look = REFERENCE

    tight: ClassVar = (False, False)
    counts: ClassVar[set[int]] = set()

    def reach(self, x: Axis, y: Axis) -> Reach:
        at, ends = np.array([self.at]), np.array(self.ends or (), dtype=float)
        return (ends, at) if self.along == "x" else (at, ends)


@dataclass(frozen=True)
class Span:
    """A shaded stretch of x."""

    start: float
    end: float

    tight: ClassVar = (False, False)
    counts: ClassVar[set[int]] = set()

    def reach(self, x: Axis, y: Axis) -> Reach:
        return np.array([self.start, self.end]), np.zeros(0)


Drawn = Line | Points | Bars | Steps | Rule | Span


def _stretches(drawn: np.ndarray, breaks: np.ndarray) -> list[slice]:
    """Neighbouring points that are drawn and have no break between them."""
    found: list[slice] = []
    for at in np.flatnonzero(drawn):
        if found and found[-1].stop == at and not breaks[at - 1]:
            found[-1] = slice(found[-1].start, int(at) + 1)
        else:
            found.append(slice(int(at), int(at) + 1))
    return found

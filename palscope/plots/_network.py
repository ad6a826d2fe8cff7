"""Marks of a network: nodes that stand at places, and edges between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from palscope.plots._grammar import Axis, Reach
from palscope.plots._looks import PLAIN, Look

_ALONG = np.linspace(0, 1, 25)
"""Where points of a curve stand between its ends."""
_INNER = slice(4, -4, 2)
"""Those at which an edge says what it is."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """Marks that have names, not numbers.

    Attributes:
        x: where each stands.
        y: likewise.
        hover: what is said of each.
        labels: what is written beside each; "" of none.
        ids: what a click on each gives, where something listens to clicks.
        name: in the legend; "" keeps it out.
        look: of all.
    """

    x: Any
    y: Any
    hover: tuple[str, ...]
    labels: tuple[str, ...]
    name: str = ""
    look: Look = PLAIN
    ids: tuple[str, ...] = ()

    tight: ClassVar = (False, False)
    counts: ClassVar[set[int]] = set()

    def __post_init__(self) -> None:
        counts = [len(each) for each in (self.x, self.y, self.hover, self.labels)]
        if len(set(counts)) > 1:
            raise ValueError(
                f"nodes {self.name!r}: x, y, hover and labels are of {counts} nodes; "
                "give as many of each."
            )

    def reach(self, x: Axis, y: Axis) -> Reach:
        return np.asarray(self.x, dtype=float), np.asarray(self.y, dtype=float)


@dataclass(frozen=True, eq=False)
class Edges:
    """Curves from place to place, each as wide as it is strong.

    They leave upwards and arrive upwards, where one end is above the other.

    Attributes:
        start: x and y of each edge's beginning.
        end: of its end.
        bend: how far its middle is pushed along x.
        width: of each: pixels of the screen.
        hover: what is said of each.
        name: in the legend; "" keeps it out.
        look: of all.
    """

    start: Float[np.ndarray, "edges 2"]
    end: Float[np.ndarray, "edges 2"]
    bend: Float[np.ndarray, " edges"]
    width: Float[np.ndarray, " edges"]
    hover: tuple[str, ...]
    name: str = ""
    look: Look = PLAIN

    tight: ClassVar = (False, False)
    counts: ClassVar[set[int]] = set()

    def __post_init__(self) -> None:
        parts = (self.start, self.end, self.bend, self.width, self.hover)
        counts = [len(each) for each in parts]
        if len(set(counts)) > 1:
            raise ValueError(
                f"edges {self.name!r}: start, end, bend, width and hover are of {counts} edges; "
                "give as many of each."
            )

    @property
    def curves(self) -> Float[np.ndarray, "edges points 2"]:
        """Points along each edge: a cubic Bézier curve."""
        push = np.stack([self.bend, (self.end - self.start)[:, 1] / 2], 1)
        sign = np.array([1.0, -1.0])
        controls = (self.start, self.start + push, self.end + sign * push, self.end)
        t = _ALONG[:, None]
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        parts = [weight * each[:, None] for weight, each in zip(weights, controls, strict=True)]
        return np.sum(parts, 0)

    @property
    def by_width(self) -> list[tuple[float, Int[np.ndarray, " _edges"]]]:
        """Edges of equal width, the widest first: they are drawn as one line with gaps."""
        widths: list[float] = np.unique(self.width)[::-1].tolist()
        return [(width, np.flatnonzero(self.width == width)) for width in widths]

    def lines(self, edges: Int[np.ndarray, " _edges"]) -> tuple[np.ndarray, np.ndarray]:
        """The x and y of some edges, NaN between them."""
        curves = np.pad(self.curves[edges], ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
        x, y = curves.reshape(-1, 2)[:-1].T
        return x, y

    @property
    def middles(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """The x and y of places away from the ends, and what is said there."""
        inner = self.curves[:, _INNER]
        x, y = inner.reshape(-1, 2).T
        return x, y, [said for said in self.hover for _ in range(inner.shape[1])]

    def reach(self, x: Axis, y: Axis) -> Reach:
        return self.curves[..., 0].reshape(-1), self.curves[..., 1].reshape(-1)

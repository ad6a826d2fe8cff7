"""Every look, marker, dash and hatch of the figures, once; the colours are `palscope._palette`.

A figure names a slot; what colour that is depends on the ground it is drawn on. Every slot keeps a
contrast of 3:1 (WCAG 2.2, 1.4.11) on the light and on the dark ground of the page, and on paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex

from palscope._palette import FREE, PALETTE, SERIES, STREAMS

LIGHT_GROUNDS = ("#FFFFFF", "#F0F2F6")
"""Paper and the page; the page's panels."""
DARK_GROUNDS = ("#171614", "#0E1117")
"""The page; other dark pages."""

MARKERS = {
    "circle": "o",
    "diamond": "D",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "x": "X",
    "star": "*",
    "cross": "P",
    "line-ns": "|",
}
"""Plotly's word, and matplotlib's."""
DASHES = {"solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.5)), "dashdot": "-."}
HATCHES = {"": "", "/": "//", ".": "..", "x": "xx", "\\": "\\\\", "+": "++"}

BLANK_GROUND = ("#D8D8D8", "#44474F")
"""Under heats, on light and on dark: what is blank is neither end nor middle of a scale."""
AMOUNT = "cividis"
"""Scale of a quantity from nothing up."""
ORDER = "plasma"
"""Scale of series that have an order."""
SIGNED = "RdBu_r"
"""Scale of a quantity about nothing: red above, blue below."""


@dataclass(frozen=True)
class Look:
    """How a series looks on every ground.

    Attributes:
        slot: a name of the palette; or a place from 0 to 1 on a ramp, for series that have an
            order.
        marker: of `MARKERS`; "" draws none.
        dash: of `DASHES`.
        hatch: of `HATCHES`, for bars.
        hollow: markers are rings.
        light: thinner and smaller, for what stands behind the rest.
    """

    slot: str | float = "ink"
    marker: str = "circle"
    dash: str = "solid"
    hatch: str = ""
    hollow: bool = False
    light: bool = False

    @property
    def size(self) -> float:
        """Of its marker, beside others' 1: a star shows on top of them."""
        return (0.6 if self.light else 1.0) * (1.8 if self.marker == "star" else 1.0)

    def colour(self, dark: bool = False) -> str:
        """The hexadecimal colour on a light or on a dark ground."""
        if isinstance(self.slot, str):
            return PALETTE[self.slot][dark]
        # The part of the scale that stands out from the ground.
        start, end = (1.0, 0.42) if dark else (0.0, 0.57)
        return to_hex(mpl.colormaps[ORDER](start + (end - start) * self.slot)).upper()


PLAIN = Look()
REFERENCE = Look("grey", marker="", dash="dot", light=True)
"""A line to compare with."""


def looks(names: Iterable[Any]) -> dict[Any, Look]:
    """A look for each name: streams and text have theirs wherever drawn, the others differ.

    Shapes tell it twice, and as there is one fewer of them, no two of 72 look alike.
    """
    wanted = list(dict.fromkeys(names))
    own = [name for name in wanted if name in STREAMS]
    free = (*FREE, "wine", "ink") if own else SERIES
    markers = [name for name in MARKERS if name != "line-ns"]
    found = {name: Look(name, {"summary": "diamond"}.get(name, "circle")) for name in own}
    rest = [name for name in wanted if name not in found]
    for i, name in enumerate(rest):
        at = i + 2 * bool(own)  # circle and diamond are taken
        found[name] = Look(free[i % len(free)], markers[at % len(markers)])
    return {name: found[name] for name in wanted}


def ramp(count: int) -> list[Look]:
    """Looks for series that have an order, which colour-blind readers can tell too."""
    return [Look(i / max(1, count - 1), marker="") for i in range(count)]


def translucent(colour: str, alpha: float = 0.2) -> str:
    """A hexadecimal colour as CSS `rgba(…)`."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"

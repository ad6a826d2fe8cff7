"""What the figures share: colours, and words for their axes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure

from palscope._routing.display import colours as colours

COLOUR_SCALE = "cividis"
DIFFERENCE_SCALE = "RdBu_r"
# Okabe and Ito's palette (2008) and two of Tol's muted scheme (2021), made for the colour-blind.
# Shapes tell it twice, and as there is one fewer of them, no two of 72 look alike.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
    "#999933",
)
_MARKS = (
    ("circle", "o"),
    ("diamond", "D"),
    ("square", "s"),
    ("triangle-up", "^"),
    ("triangle-down", "v"),
    ("x", "X"),
    ("star", "*"),
    ("cross", "P"),
)

SHARE = "share of attention"
SHARE_PER_TOKEN = "share of attention per token"
SHARE_PER_SECOND = "share of attention a second"
POINTS = "percentage points of attention"
TIME = "time (s)"
LAYER = "layer"
HEAD = "head"
HEAD_STRIPS = "head; within each, time from left"
NO_AUDIO = "no audio token is seen here"


def translucent(colour: str, alpha: float = 0.2) -> str:
    """A hexadecimal colour as CSS `rgba(…)`."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def looks(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """For each name a colour and a shape, in Plotly's word and in matplotlib's."""
    return {
        name: (_COLOURS[i % len(_COLOURS)], *_MARKS[i % len(_MARKS)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def legend_above(figure: Figure, drawn: dict[str, Any], columns: int) -> None:
    """One legend for all panels, above them: what is drawn, by its name."""
    figure.legend(
        list(drawn.values()),
        list(drawn),
        frameon=False,
        ncols=columns,
        fontsize="small",
        loc="outside upper left",
    )

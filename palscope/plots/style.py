"""What the figures share: colours, and words for their axes."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from palscope.routing.display import colours as colours

COLOUR_SCALE = "cividis"
DIFFERENCE_SCALE = "RdBu_r"

SHARE = "share of attention"
SHARE_PER_TOKEN = "share of attention per token"
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

"""What the figures share: colours, and words for their axes."""

from __future__ import annotations

from collections.abc import Iterable

# Okabe and Ito's palette (2008), which colour-blind readers can tell apart.
_FIXED = {"text": "#555555", "frames": "#0072B2", "summary": "#D55E00"}
_OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
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


def colours(pathways: Iterable[str]) -> dict[str, str]:
    """A colour for each pathway; "text", "frames" and "summary" have theirs in every figure."""
    others = [name for name in dict.fromkeys(pathways) if name not in _FIXED]
    return {**_FIXED, **{name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}}


def translucent(colour: str, alpha: float = 0.2) -> str:
    """A hexadecimal colour as CSS `rgba(…)`."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"

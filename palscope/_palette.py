"""The colours of everything that palscope draws, on light and on dark ground."""

from __future__ import annotations

STREAMS = ("text", "frames", "summary")
"""What keeps its colour wherever drawn."""

# Okabe and Ito's palette (2008) and two of Tol's muted scheme (2021), made for the colour-blind;
# the bright ones are darker on a light ground, the dark ones brighter on a dark one: each keeps
# a contrast of 3:1 with its ground (WCAG 2.2, 1.4.11).
PALETTE = {
    "text": ("#7F7F7F", "#7F7F7F"),
    "frames": ("#0072B2", "#0072B2"),
    "summary": ("#D55E00", "#D55E00"),
    "green": ("#009E73", "#009E73"),
    "pink": ("#B85C90", "#CC79A7"),
    "orange": ("#A87300", "#E69F00"),
    "sky": ("#2B86BF", "#56B4E9"),
    "wine": ("#882255", "#D46A98"),
    "olive": ("#7D7D29", "#C2C25C"),
    "blue": ("#0072B2", "#2E95D3"),
    "vermilion": ("#D55E00", "#E8752A"),
    "grey": ("#7F7F7F", "#8C8C8C"),
    "ink": ("#1A1A1A", "#F0F0F0"),
}
"""Each slot's colour on a light and on a dark ground."""

FREE = ("green", "pink", "orange", "sky", "olive")
"""Slots of streams without a colour of their own; the first of each suits both grounds."""

SERIES = ("blue", "vermilion", "green", "pink", "orange", "sky", "ink", "wine", "olive")
"""Slots of what is no stream."""

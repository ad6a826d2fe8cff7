"""Figures and tables as files: PNG, SVG, HTML, CSV, Parquet, each made when it is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import plotly.graph_objects as go
import streamlit as st

from palscope._statistics import storable
from palscope.plots import Figure

WIDE = "wide"
"""Begins the key of a figure that a narrow screen scrolls through."""
LEGEND = 4
"""So many names stand in a line or two above a narrow figure."""

_DRAWN: WeakKeyDictionary[Figure, dict[bool, go.Figure]] = WeakKeyDictionary()
"""Of each figure that is still there, what is shown on light and on dark."""


def offer(name: str, describe: Callable[[], Figure]) -> None:
    """A button that opens the files of one figure.

    Args:
        name: of the files, and unique on the page.
        describe: gives its description; called when a file is asked for.
    """

    def table() -> Any:
        return describe().data

    makers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "png": ("image/png", lambda: _picture(describe(), "png")),
        "svg": ("image/svg+xml", lambda: _picture(describe(), "svg")),
        "html": ("text/html", lambda: _page(describe()).to_html(include_plotlyjs=True).encode()),
        "csv": ("text/csv", lambda: table().to_csv(index=False).encode()),
        "parquet": (
            "application/vnd.apache.parquet",
            lambda: storable(table()).to_parquet(index=False),
        ),
    }
    with st.popover("Download", icon=":material/download:", help="Figure and table as files"):
        for ending, (mime, make) in makers.items():
            st.download_button(
                ending.upper() if ending != "parquet" else "Parquet",
                make,
                f"{name.replace(' ', '_')}.{ending}",
                mime,
                key=f"download {name} {ending}",
                on_click="ignore",
            )


def show(figure: Figure, name: str) -> None:
    """Draw a figure on the page's own ground, light or dark, and offer its files.

    One that the page remembers is drawn once for each ground, and not at every click.

    Args:
        figure: its description.
        name: of the files, and unique on the page.
    """
    wide = figure.grid[1] > 1 or len(figure.legend()) > LEGEND
    with st.container(key=f"{WIDE} {name}") if wide else nullcontext():
        alt = f"{name}: {figure.caption}"
        st.plotly_chart(on_ground(figure), key=name, theme=None, alt=alt)
    offer(name, lambda: figure)


def on_ground(figure: Figure) -> go.Figure:
    """The figure for the screen, on the visitor's ground; drawn once, so not to be changed."""
    dark = on_dark()
    drawn = _DRAWN.setdefault(figure, {})
    if dark not in drawn:
        drawn[dark] = figure.screen(dark=dark)
    return drawn[dark]


def on_dark() -> bool:
    """Whether the visitor's ground is dark."""
    return st.context.theme.type == "dark"


def _page(figure: Figure) -> Any:
    return figure.screen()


def _picture(figure: Figure, ending: str) -> bytes:
    file = io.BytesIO()
    figure.print().savefig(file, format=ending, dpi=200)
    return file.getvalue()

"""Figures and tables as files: PNG, SVG, HTML, CSV, Parquet, each made when it is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from matplotlib.figure import Figure

from palscope._statistics import plain
from palscope.plots._figure import Figure as Description


def offer(
    name: str,
    screen: Callable[[], go.Figure],
    paper: Callable[[], Figure],
    table: Callable[[], pd.DataFrame],
) -> None:
    """A button that opens the files of one figure.

    Args:
        name: of the files, and unique on the page.
        screen: gives the figure of the page, for HTML.
        paper: draws its counterpart for print, for PNG and SVG.
        table: gives what is drawn.
    """
    whole: Callable[[], Any] = table
    page: Callable[[], Any] = screen
    makers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "png": ("image/png", lambda: _picture(paper(), "png")),
        "svg": ("image/svg+xml", lambda: _picture(paper(), "svg")),
        "html": ("text/html", lambda: page().to_html(include_plotlyjs=True).encode()),
        "csv": ("text/csv", lambda: whole().to_csv(index=False).encode()),
        "parquet": (
            "application/vnd.apache.parquet",
            lambda: plain(whole()).to_parquet(index=False),
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


def _picture(figure: Figure, ending: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=ending, dpi=200)
    return file.getvalue()


def show(figure: Description, name: str) -> None:
    """Draw a figure on the page's own ground, light or dark, and offer its files.

    Args:
        figure: its description.
        name: of the files, and unique on the page.
    """
    dark = st.context.theme.type == "dark"
    st.plotly_chart(figure.screen(dark=dark), key=name, theme=None)
    offer(name, figure.screen, figure.print, lambda: figure.data)

"""What the pages draw beside the package's figures: answers, tokens, and maps to click on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from _downloads import on_ground

from palscope._palette import PALETTE
from palscope.plots import Figure

SIDES = (PALETTE["green"][0], PALETTE["orange"][0])
"""Of the two sides of a comparison, on light and dark; the streams have others of theirs."""


def bars(sides: Mapping[str, pd.Series], title: str) -> go.Figure:
    """Horizontal bars of percentages: a group a label, a colour a side.

    Args:
        sides: for each side its shares (0 to 1) by label; all sides have the same labels.
        title: of the axis.
    """
    figure = go.Figure()
    labels = [escape(str(label)) for label in next(iter(sides.values())).index]
    for (side, shares), colour in zip(sides.items(), SIDES, strict=False):
        figure.add_bar(
            x=100 * shares.to_numpy(),
            y=list(range(len(labels))),
            name=side,
            orientation="h",
            marker_color=colour,
            customdata=labels,
            hovertemplate="%{customdata}: %{x:.2f} %<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        height=90 + (14 + 13 * len(sides)) * len(labels),
        margin={"l": 0, "r": 0, "t": 30, "b": 0},
        barmode="group",
        bargap=0.3,
        showlegend=len(sides) > 1,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        xaxis={"title": title, "range": [0, 100]},
        yaxis={
            "tickvals": list(range(len(labels))),
            "ticktext": labels,
            "autorange": "reversed",
            "automargin": True,
        },
    )
    return figure


def steps_table(steps: pd.DataFrame) -> str:
    """The likeliest tokens of each step of an answer, as an HTML table: a column a step.

    Args:
        steps: columns `step, rank, token, probability, chosen`.
    """
    whole: Any = steps
    rows = {
        str(int(str(rank)) + 1): [
            shaded_cell(
                cell.token, cell.probability, f"{100 * cell.probability:.1f} %", bold=cell.chosen
            )
            for cell in cells.itertuples()
        ]
        for rank, cells in whole.groupby("rank")
    }
    columns = [str(step + 1) for step in whole["step"].unique()]
    return shaded_table("likeliest tokens of each step", "step", columns, rows)


def shaded_table(
    label: str, corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> str:
    """An HTML table of words, each shaded by its probability; it scrolls where it is too large.

    Args:
        label: what it is, for screen readers.
        corner: over the names of the rows.
        columns: their names.
        rows: by their names, a `shaded_cell` each column.
    """
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th scope='row'>{name}</th>{''.join(cells)}</tr>" for name, cells in rows.items()
    )
    return (
        "<style>.shaded{overflow:auto;max-height:30rem}.shaded table{border-collapse:collapse;"
        "font-size:.8rem}.shaded th{font-weight:400;padding:0 .5rem;white-space:nowrap;"
        "text-align:left}.shaded td{padding:.05rem .5rem;white-space:nowrap;background:"
        "linear-gradient(90deg,rgba(0,158,115,.35) var(--share),transparent var(--share));"
        "border:1px solid rgba(128,128,128,.2)}</style>"
        f"<div class='shaded' tabindex='0' role='region' aria-label='{label}'>"
        f"<table><tr><th scope='col'>{corner}</th>{head}</tr>{body}</table></div>"
    )


def shaded_cell(word: str, share: float, number: str, *, bold: bool = False) -> str:
    """A cell of `shaded_table`: a word, and its probability as a shade and as `number`."""
    said = f"<b>{escape(word)}</b>" if bold else escape(word)
    return f"<td style='--share:{100 * share:.1f}%'>{said} <small>{number}</small></td>"


def clickable(figure: go.Figure, chosen: tuple[int | None, int | None]) -> go.Figure:
    """A layer × head map on which a click names a head (`customdata`), the chosen one framed.

    Heatmaps send no clicks through Streamlit; a point on each cell does. `figure` stays as it is.
    """
    figure = copy.deepcopy(figure)
    layout: Any = figure.layout
    # Of the axes: in a copied figure plotly keeps values packed, in a dictionary.
    heads, layers = (round(axis.range[1] + 0.5) for axis in (layout.xaxis, layout.yaxis))
    points = [(layer, head) for layer in range(layers) for head in range(heads)]
    figure.add_scatter(
        x=[head for _, head in points],
        y=[layer for layer, _ in points],
        customdata=points,
        mode="markers",
        marker={"symbol": "square", "size": 14, "color": "rgba(0,0,0,0)"},
        unselected={"marker": {"opacity": 0}},
        selected={"marker": {"opacity": 0}},
        hoverinfo="none",
        showlegend=False,
    )
    layer, head = chosen
    if layer is not None or head is not None:
        x = (-0.5, heads - 0.5) if head is None else (head - 0.5, head + 0.5)
        y = (-0.5, layers - 0.5) if layer is None else (layer - 0.5, layer + 0.5)
        figure.add_shape(
            type="rect", x0=x[0], x1=x[1], y0=y[0], y1=y[1], line={"color": "#D55E00", "width": 2}
        )
    return figure


def click_map(
    key: str,
    figure: Figure,
    chosen: tuple[int | None, int | None],
    choose: Callable[[int, int], None],
    alt: str,
    **layout: Any,
) -> None:
    """Draw a `clickable` map; a click on a cell calls `choose` with its layer and head.

    Args:
        key: unique on the page.
        figure: the map's description.
        chosen: the layer and head that are framed.
        choose: called before the page runs again.
        alt: what it is, for screen readers.
        **layout: of plotly's, in place of the figure's.
    """

    def clicked() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points and points[0].get("customdata") is not None:  # marks on cells have none
            choose(*points[0]["customdata"])

    drawn = clickable(on_ground(figure), chosen)
    if layout:
        drawn.update_layout(**layout)
    st.plotly_chart(drawn, key=key, on_select=clicked, selection_mode="points", theme=None, alt=alt)

"""Figures of the page that are no analysis: the sound itself, and the answer's first token."""

from __future__ import annotations

from html import escape

import pandas as pd
import plotly.graph_objects as go

from palscope.audio import Waveform
from palscope.plots import attention as plots
from palscope.plots import style
from palscope.plots.spectrogram import mel_image

COLOURS = {"original": "#009E73", "switched": "#E69F00"}
"""Okabe and Ito's; the streams have others of theirs."""


def spectrogram(waveform: Waveform) -> go.Figure:
    """The log-mel spectrogram that the encoder hears, over seconds."""
    image = mel_image(waveform)
    figure = go.Figure(plots.spectrogram(image))
    figure.update_layout(
        height=260,
        margin={"l": 60, "r": 20, "t": 10, "b": 50},
        xaxis={"title": style.TIME, "range": [0, image.seconds]},
        yaxis=plots.frequency_axis(image),
    )
    return figure


def token_bars(tokens: pd.DataFrame) -> go.Figure:
    """Bars of first tokens' probabilities; `tokens`: columns `token, route, probability`."""
    figure = go.Figure()
    tokens = tokens.assign(token=tokens["token"].map(escape))  # plotly reads some HTML
    for name, rows in tokens.groupby("route", sort=False):
        figure.add_bar(
            x=100 * rows["probability"],
            y=list(range(len(rows))),
            name=str(name),
            orientation="h",
            marker_color=COLOURS[str(name)],
            customdata=rows["token"],
            hovertemplate="%{customdata}: %{x:.2f} %<extra>%{fullData.name}</extra>",
        )
    routes = tokens["route"].nunique()
    labels = tokens["token"][: len(tokens) // routes]
    figure.update_layout(
        height=90 + (16 + 14 * routes) * len(labels),
        margin={"l": 0, "r": 0, "t": 30, "b": 0},
        barmode="group",
        bargap=0.3,
        showlegend=routes > 1,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        xaxis={"title": "probability of the answer's first token (%)", "range": [0, 100]},
        yaxis={
            "tickvals": list(range(len(labels))),
            "ticktext": list(labels),
            "autorange": "reversed",
        },
    )
    return figure

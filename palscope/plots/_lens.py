"""Figures of the logit lens: for screens, and for print."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from palscope.plots import _spread as spread
from palscope.plots import _style as style
from palscope.plots._style import legend_above

PASSED = "layers passed"
LEADS = "share in which the answer leads"
CHANCE = "chance"
_WRITTEN = "written by "


def readable_by_depth(bands: pd.DataFrame) -> go.Figure:
    """In what share the right answer leads the other choices, by layers passed; a panel a domain.

    Args:
        bands: `domain, chance, place, depth, n, mean, low, high`: a `mean_band` of `leads` by place
            and depth, of what `by_depth` gives for each clip of a domain.
    """
    whole: Any = bands
    domains = list(dict.fromkeys(whole["domain"]))
    figure: Any = make_subplots(
        cols=len(domains), shared_yaxes=True, subplot_titles=domains, horizontal_spacing=0.03
    )
    named: set[str] = set()
    for (domain, place), rows in whole.groupby(["domain", "place"], sort=False):
        column = domains.index(domain) + 1
        colour, dash, _ = _look(place)
        at: dict[str, Any] = {"legendgroup": place, "row": 1, "col": column}
        spread.band(figure, rows, "depth", colour, 0.15, **at)
        figure.add_scatter(
            x=rows["depth"],
            y=rows["mean"],
            name=place,
            legendgroup=place,
            showlegend=place not in named,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dash},
            marker={"size": 4},
            hovertemplate="%{x} layers passed: %{y:.2f}",
            row=1,
            col=column,
        )
        named.add(place)
    for domain, chance in whole.groupby("domain", sort=False)["chance"].first().items():
        line = {"color": "#555", "width": 1, "dash": "dot"}
        figure.add_hline(y=chance, line=line, row=1, col=domains.index(domain) + 1)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 70, "b": 50},
        legend={"orientation": "h", "y": 1.12, "yanchor": "bottom", "x": 0},
        height=380,
    )
    figure.update_xaxes(title=PASSED)
    figure.update_yaxes(range=[0, 1.02])
    figure.update_yaxes(title=LEADS, col=1)
    return figure


def readable_by_depth_paper(bands: pd.DataFrame) -> Figure:
    """As `readable_by_depth`, for print."""
    whole: Any = bands
    domains = list(dict.fromkeys(whole["domain"]))
    figure = Figure(figsize=(1.2 + 2.6 * len(domains), 3.0), layout="constrained")
    axes: Any = figure.subplots(1, len(domains), sharey=True, squeeze=False)[0]
    lines: dict[str, Any] = {}
    for (domain, place), rows in whole.groupby(["domain", "place"], sort=False):
        axis = axes[domains.index(domain)]
        colour, _, dash = _look(place)
        spread.band_paper(axis, rows, "depth", colour, 0.15)
        (lines[place],) = axis.plot(
            rows["depth"], rows["mean"], dash, color=colour, marker="o", markersize=2, linewidth=1.3
        )
    for axis, domain in zip(axes, domains, strict=True):
        chance = whole.loc[whole["domain"] == domain, "chance"].iloc[0]
        lines[CHANCE] = axis.axhline(chance, color="#555", linewidth=0.8, linestyle=":")
        axis.set(title=domain, xlabel=PASSED, ylim=(0, 1.02))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.5)
    axes[0].set_ylabel(LEADS)
    legend_above(figure, lines, 2 * len(domains))
    return figure


def _look(place: str) -> tuple[str, str, str]:
    """Colour of a place, and its kind of line in plotly and in matplotlib."""
    written = place.startswith(_WRITTEN)
    stream = place.removeprefix(_WRITTEN)
    text = {"last token": "#000000", "other text": "text"}.get(stream, stream)
    colour = text if text.startswith("#") else style.colours([text])[text]
    return (colour, "dash", "--") if written else (colour, "solid", "-")

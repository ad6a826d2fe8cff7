"""Figures of pathway masking: accuracy by domain with each stream masked, for screens and print."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]
from matplotlib.figure import Figure
from plotly.subplots import make_subplots  # pyright: ignore[reportMissingTypeStubs]

from palscope.measures._masking import ALL_DOMAINS, NOTHING

_ACCURACY = "accuracy (%)"
_COLOURS = ("#b0b0b0", "#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9")
"""Okabe and Ito's, grey first: what is masked, in the order of the table."""

_HATCHES = ("", "//", "..", "xx", "\\\\", "++")
TITLES = {
    "knockout": "text does not read it (knockout)",
    "reroute": "absent: nothing reads it (reroute)",
}
_WIDTH = 0.8


def accuracy_by_domain(scores: pd.DataFrame) -> go.Figure:
    """Bars of accuracy with their intervals: a panel a way, a group a domain, a bar a masking.

    Args:
        scores: of `palscope.measures._masking.masking_scores`.

    A dotted line across each domain's bars is chance.
    """
    table, ways, domains, maskings = _axes(scores)
    figure: Any = make_subplots(
        rows=1,
        cols=len(ways),
        shared_yaxes=True,
        subplot_titles=[TITLES[way] for way in ways],
        horizontal_spacing=0.04,
    )
    for column, way in enumerate(ways, start=1):
        for number, masked in enumerate(maskings):
            rows = table[(table["way"] == way) & (table["masked"] == masked)]
            places = [
                domains.index(domain) + _offset(number, maskings) for domain in rows["domain"]
            ]
            figure.add_bar(
                x=places,
                y=rows["accuracy"],
                width=_WIDTH / len(maskings),
                name=_name(masked),
                legendgroup=masked,
                showlegend=column == 1,
                marker={"color": _colour(number), "pattern": {"shape": _pattern(number)}},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": rows["high"] - rows["accuracy"],
                    "arrayminus": rows["accuracy"] - rows["low"],
                    "color": "#000000",
                    "thickness": 1,
                },
                customdata=np.stack([rows["n"], rows["low"], rows["high"]], -1),
                hovertemplate="%{y:.1f} % [%{customdata[1]:.1f}, %{customdata[2]:.1f}] of "
                "%{customdata[0]} clips",
                row=1,
                col=column,
            )
        for place, domain in enumerate(domains):
            figure.add_shape(
                type="line",
                x0=place - _WIDTH / 2,
                x1=place + _WIDTH / 2,
                y0=_chance(table, domain),
                y1=_chance(table, domain),
                line={"color": "#000000", "dash": "dot", "width": 1},
                row=1,
                col=column,
            )
        figure.update_xaxes(
            tickvals=list(range(len(domains))), ticktext=_ticks(table, domains), col=column
        )
    figure.update_yaxes(title=_ACCURACY, col=1)
    figure.update_yaxes(range=[0, 103])
    figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "y": 1.12, "yanchor": "bottom", "x": 0},
        margin={"l": 60, "r": 20, "t": 90, "b": 50},
        height=420,
    )
    return figure


def accuracy_by_domain_paper(scores: pd.DataFrame) -> Figure:
    """As `accuracy_by_domain`, for print."""
    table, ways, domains, maskings = _axes(scores)
    figure = Figure(figsize=(1 + 1.3 * len(domains) * len(ways), 3.4), layout="constrained")
    panels: Any = figure.subplots(1, len(ways), sharey=True, squeeze=False)
    for axes, way in zip(panels[0], ways, strict=True):
        for number, masked in enumerate(maskings):
            rows = table[(table["way"] == way) & (table["masked"] == masked)]
            places = [
                domains.index(domain) + _offset(number, maskings) for domain in rows["domain"]
            ]
            axes.bar(
                places,
                rows["accuracy"],
                _WIDTH / len(maskings),
                yerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
                color=_colour(number),
                hatch=_HATCHES[number % len(_HATCHES)],
                edgecolor="white",
                error_kw={"elinewidth": 0.8, "capsize": 1.5},
                label=_name(masked),
            )
        for place, domain in enumerate(domains):
            ends = (place - _WIDTH / 2, place + _WIDTH / 2)
            label = "chance" if place == 0 else None
            axes.hlines(_chance(table, domain), *ends, color="black", ls=":", lw=1, label=label)
        axes.set_xticks(range(len(domains)), labels=_ticks(table, domains, "\n"))
        axes.set_title(TITLES[way], fontsize="medium")
        axes.set_ylim(0, 103)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.5)
        axes.set_axisbelow(True)
    panels[0][0].set_ylabel(_ACCURACY)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=5, loc="outside upper left")
    return figure


def _axes(scores: pd.DataFrame) -> tuple[Any, list[str], list[str], list[str]]:
    """The table in per cent, and what stands on its axes, in order."""
    table: Any = scores.copy()
    for name in ("accuracy", "low", "high", "chance"):
        table[name] *= 100
    return table, _names(table, "way"), _names(table, "domain"), _names(table, "masked")


def _names(table: Any, column: str) -> list[str]:
    return [str(each) for each in table[column].unique()]


def _offset(number: int, maskings: list[str]) -> float:
    return (number - (len(maskings) - 1) / 2) * _WIDTH / len(maskings)


def _name(masked: str) -> str:
    return "nothing masked" if masked == NOTHING else f"{masked} masked"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _pattern(number: int) -> str:
    return ("", "/", ".", "x", "\\", "+")[number % 6]


def _chance(table: Any, domain: str) -> float:
    return float(table[table["domain"] == domain]["chance"].iloc[0])


def _ticks(table: Any, domains: list[str], between: str = "<br>") -> list[str]:
    counts: dict[str, int] = table.groupby("domain")["n"].max().to_dict()
    names = ["all domains" if domain == ALL_DOMAINS else domain for domain in domains]
    return [f"{n}{between}{counts[d]} clips" for n, d in zip(names, domains, strict=True)]

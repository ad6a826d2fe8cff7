"""Accuracy against depth or cost of placements of audio: for screens, and for print."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from palscope._routing.depths import NO_AUDIO
from palscope.plots._spread import error_bars, error_bars_paper
from palscope.plots._style import legend_above, looks

Against = Literal["layers", "first_layer", "prefill_ratio", "cache_ratio"]

LABELS: dict[Against, str] = {
    "layers": "layers with audio",
    "first_layer": "lowest layer with audio",
    "prefill_ratio": "prefill time, relative",
    "cache_ratio": "size of the cache, relative",
}
ACCURACY = "accuracy"
_GREY = "#7F7F7F"


def accuracy_against(table: pd.DataFrame, x: Against) -> go.Figure:
    """Accuracy with its interval: a row of panels a model, a column a domain, a colour a family.

    The dotted line is the accuracy without audio, the dashed one chance.

    Args:
        table: one row a (model, family, placement, domain): `model, family, placement, domain, n,
            accuracy, low, high, chance` and the column `x`; for `prefill_ratio` its quartiles
            `prefill_ratio_low, prefill_ratio_high` too.
        x: what stands on the horizontal axis.
    """
    models, domains, families, titles = _panels(table)
    figure: Any = make_subplots(
        rows=len(models),
        cols=len(domains),
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[title.replace("\n", "<br>") for title in titles],
        horizontal_spacing=0.03,
        vertical_spacing=0.26 / len(models),
    )
    named: set[str] = set()
    for (model, domain), panel in _groups(table, ["model", "domain"]):
        place = {"row": models.index(model) + 1, "col": domains.index(domain) + 1}
        for name, height, dash in _references(panel):
            figure.add_scatter(
                x=_span(table, x),
                y=[height, height],
                name=name,
                legendgroup=name,
                showlegend=name not in named,
                mode="lines",
                line={"color": _GREY, "width": 1, "dash": dash},
                hovertemplate=f"{name}: %{{y:.2f}}",
                **place,
            )
            named.add(name)
        for family, rows in _groups(panel[panel["family"] != NO_AUDIO], ["family"]):
            colour, mark, _ = families[family]
            rows = rows.sort_values(x)
            figure.add_scatter(
                x=rows[x],
                y=rows["accuracy"],
                error_y=error_bars(rows, "accuracy"),
                error_x=_quartiles(rows, x),
                name=family,
                legendgroup=family,
                showlegend=family not in named,
                mode="markers" if x.endswith("ratio") else "lines+markers",
                line={"color": colour, "width": 1.5},
                marker={"color": colour, "size": 7, "symbol": mark},
                text=rows["placement"],
                hovertemplate="%{text}: %{y:.2f} (%{x:.3g})",
                **place,
            )
            named.add(family)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 150, "b": 50},
        legend={"orientation": "h", "y": 1 + 0.2 / len(models), "yanchor": "bottom", "x": 0},
        height=180 + 240 * len(models),
    )
    figure.update_yaxes(range=[-0.03, 1.05])
    figure.update_yaxes(title=ACCURACY, col=1)
    figure.update_xaxes(title=LABELS[x], row=len(models))
    return figure


def accuracy_against_paper(table: pd.DataFrame, x: Against) -> Figure:
    """As `accuracy_against`, for print."""
    models, domains, families, titles = _panels(table)
    size = (1.2 + 2.4 * len(domains), 1.2 + 2.0 * len(models))
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(len(models), len(domains), sharex=True, sharey=True, squeeze=False)
    drawn: dict[str, Any] = {}
    for (model, domain), panel in _groups(table, ["model", "domain"]):
        axis = axes[models.index(model), domains.index(domain)]
        for name, height, dash in _references(panel):
            style = {"dot": ":", "dash": "--"}[dash]
            drawn[name] = axis.axhline(height, color=_GREY, linewidth=1, linestyle=style)
        for family, rows in _groups(panel[panel["family"] != NO_AUDIO], ["family"]):
            colour, _, mark = families[family]
            rows = rows.sort_values(x)
            quartiles = None
            if x == "prefill_ratio":
                quartiles = error_bars_paper(rows, x, x)
            drawn[family] = axis.errorbar(
                rows[x],
                rows["accuracy"],
                yerr=error_bars_paper(rows, "accuracy"),
                xerr=quartiles,
                fmt=mark if x.endswith("ratio") else f"{mark}-",
                color=colour,
                markersize=4,
                linewidth=1.2,
                elinewidth=0.7,
            )
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_title(title, fontsize="medium")
        axis.set_ylim(-0.03, 1.05)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.5)
    for axis in axes[:, 0]:
        axis.set_ylabel(ACCURACY)
    for axis in axes[-1]:
        axis.set_xlabel(LABELS[x])
    legend_above(figure, drawn, 2)
    return figure


def _panels(table: Any) -> tuple[list[str], list[str], dict[str, tuple[str, str, str]], list[str]]:
    """The models, the domains, how each family looks, and a title for each panel."""
    models, domains = list(table["model"].unique()), list(table["domain"].unique())
    families = [name for name in table["family"].unique() if name != NO_AUDIO]
    counts = table.groupby(["model", "domain"])["n"].max()
    titles = [
        f"{model}\n{domain} ({counts.get((model, domain), 0)} clips)"
        for model in models
        for domain in domains
    ]
    return models, domains, looks(families), titles


def _groups(table: Any, by: list[str]) -> Any:
    groups = table.groupby(by, sort=False, observed=True)
    return ((key[0] if len(by) == 1 else key, rows) for key, rows in groups)


def _references(panel: Any) -> list[tuple[str, float, str]]:
    """Lines to compare with: their name, height and dash."""
    lines = [("chance", float(panel["chance"].iloc[0]), "dash")]
    silent = panel.loc[panel["family"] == NO_AUDIO, "accuracy"]
    return [*lines, (NO_AUDIO, float(silent.iloc[0]), "dot")] if len(silent) else lines


def _span(table: Any, x: str) -> list[float]:
    shown = table.loc[table["family"] != NO_AUDIO, x]
    return [float(shown.min()), float(shown.max())]


def _quartiles(rows: Any, x: str) -> dict[str, Any] | None:
    if x != "prefill_ratio":
        return None
    return error_bars(rows, x, x)

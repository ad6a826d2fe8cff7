"""Figures that set models, domains or runs side by side: for screens, and for print."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from palscope.plots import _spread as spread
from palscope.plots import _style as style

_MARKS = {"frames": ("circle", "o"), "summary": ("diamond", "D")}


def mass_by_depth(bands: pd.DataFrame) -> go.Figure:
    """Share of attention to each stream by layer: a row of panels a model, a column a domain.

    Args:
        bands: `model, domain, pathway, layer, n, mean, low, high`: a `mean_band` of `by_pathway` by
            layer and pathway for each model and domain. Text, which has the rest, is not drawn.
    """
    table, models, domains, titles = _panels(bands)
    figure: Any = make_subplots(
        rows=len(models),
        cols=len(domains),
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=titles,
        horizontal_spacing=0.03,
        vertical_spacing=0.22 / len(models),
    )
    colours = style.colours(table["pathway"])
    named: set[str] = set()
    for (model, domain, pathway), rows in table.groupby(["model", "domain", "pathway"], sort=False):
        place: dict[str, Any] = {"row": models.index(model) + 1, "col": domains.index(domain) + 1}
        spread.band(figure, rows, "layer", colours[pathway], legendgroup=pathway, **place)
        figure.add_scatter(
            x=rows["layer"],
            y=rows["mean"],
            name=pathway,
            legendgroup=pathway,
            showlegend=pathway not in named,
            mode="lines+markers",
            line={"color": colours[pathway], "width": 2},
            marker={"size": 4, "symbol": _MARKS.get(pathway, ("square", "s"))[0]},
            hovertemplate="layer %{x}: %{y:.3f}",
            **place,
        )
        named.add(pathway)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 70, "b": 50},
        legend={"orientation": "h", "y": 1.02 + 0.06 / len(models), "yanchor": "bottom", "x": 0},
        height=130 + 200 * len(models),
    )
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title=style.SHARE, col=1)
    figure.update_xaxes(title=style.LAYER, row=len(models))
    return figure


def mass_by_depth_paper(bands: pd.DataFrame) -> Figure:
    """As `mass_by_depth`, for print."""
    table, models, domains, titles = _panels(bands)
    size = (1.2 + 2.4 * len(domains), 0.8 + 1.8 * len(models))
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(len(models), len(domains), sharex=True, sharey=True, squeeze=False)
    colours = style.colours(table["pathway"])
    lines: dict[str, Any] = {}
    for (model, domain, pathway), rows in table.groupby(["model", "domain", "pathway"], sort=False):
        axis = axes[models.index(model), domains.index(domain)]
        spread.band_paper(axis, rows, "layer", colours[pathway])
        mark = _MARKS.get(pathway, ("square", "s"))[1]
        (lines[pathway],) = axis.plot(
            rows["layer"], rows["mean"], f"{mark}-", color=colours[pathway], markersize=2.5
        )
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_title(title, fontsize="medium")
        axis.set_ylim(0, None)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.5)
    for axis in axes[:, 0]:
        axis.set_ylabel(style.SHARE)
    for axis in axes[-1]:
        axis.set_xlabel(style.LAYER)
    figure.legend(
        list(lines.values()), list(lines), frameon=False, ncols=4, loc="outside upper left"
    )
    return figure


def differences(summary: pd.DataFrame) -> go.Figure:
    """Mean difference between two runs, B less A, along each column that names a row.

    Args:
        summary: rows of one `value` of `palscope._sweeps.compare.difference_summary`, without those
            by "all".
    """
    panels = _difference_panels(summary)
    figure: Any = make_subplots(rows=1, cols=len(panels), shared_yaxes=True)
    colours = style.colours(_words(summary, "group"))
    named: set[str] = set()
    for column, (by, groups) in enumerate(panels.items(), start=1):
        for group, rows in groups.items():
            figure.add_scatter(
                x=rows["at"],
                y=rows["difference"],
                error_y=spread.error_bars(rows, "difference"),
                name=group or "mean",
                legendgroup=group,
                showlegend=group not in named,
                mode="lines+markers" if _numeric(rows) else "markers",
                marker={"size": 5, "color": colours[group]},
                line={"color": colours[group], "width": 2},
                row=1,
                col=column,
            )
            at: dict[str, Any] = {"legendgroup": group, "row": 1, "col": column}
            spread.points(figure, rows, rows["at"], colours[group], **at)
            named.add(group)
        figure.update_xaxes(title=by, row=1, col=column)
    figure.add_hline(y=0, line={"color": "#555", "width": 1, "dash": "dot"})
    figure.update_yaxes(title=f"{summary['value'].iloc[0]}, B less A", col=1)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        height=380,
    )
    return figure


def differences_paper(summary: pd.DataFrame) -> Figure:
    """As `differences`, for print."""
    panels = _difference_panels(summary)
    figure = Figure(figsize=(1 + 3 * len(panels), 3.2), layout="constrained")
    axes: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    colours = style.colours(_words(summary, "group"))
    lines: dict[str, Any] = {}
    for axis, (by, groups) in zip(axes, panels.items(), strict=True):
        for group, rows in groups.items():
            lines[group or "mean"] = axis.errorbar(
                rows["at"],
                rows["difference"],
                yerr=spread.error_bars_paper(rows, "difference"),
                fmt="o-" if _numeric(rows) else "o",
                color=colours[group],
                markersize=3,
                elinewidth=1,
            )
            spread.points_paper(axis, rows, rows["at"], colours[group])
        axis.axhline(0, color="#555", linewidth=0.8, linestyle=":")
        axis.set_xlabel(by)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.5)
    axes[0].set_ylabel(f"{summary['value'].iloc[0]}, B less A")
    figure.legend(
        list(lines.values()), list(lines), frameon=False, ncols=4, loc="outside upper left"
    )
    return figure


def _difference_panels(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each column the groups' rows, in order; levels that are numbers are so again."""
    panels: dict[str, dict[str, Any]] = {}
    table: Any = summary
    for (by, group), rows in table.groupby(["by", "group"], sort=False):
        numbers: Any = pd.to_numeric(rows["at"], errors="coerce")
        if numbers.notna().all():
            rows = rows.assign(at=numbers).sort_values("at")
        panels.setdefault(by, {})[group] = rows
    return panels


def _words(table: Any, column: str) -> list[str]:
    """The column's values, each once, in their order."""
    return table[column].astype(str).unique().tolist()


def _numeric(rows: Any) -> bool:
    return pd.api.types.is_numeric_dtype(rows["at"])


def _panels(bands: pd.DataFrame) -> tuple[Any, list[str], list[str], list[str]]:
    """The streams' rows, the models and domains in their order, and a title for each panel."""
    table: Any = bands[bands["pathway"].astype(str) != "text"].copy()
    table["pathway"] = table["pathway"].astype(str)
    models = _words(table, "model")
    domains = _words(table, "domain")
    clips: dict[Any, int] = table.groupby(["model", "domain"])["n"].max().to_dict()
    titles: list[str] = []
    for model in models:
        for domain in domains:
            parts = [model, domain, f"{clips.get((model, domain), 0)} clips"]
            titles.append(", ".join(filter(None, parts)))
    return table, models, domains, titles

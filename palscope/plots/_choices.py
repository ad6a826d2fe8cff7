"""Candidate answers' log-probabilities under changes of one route: for screens, and for print."""

from __future__ import annotations

from typing import Any

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]
from matplotlib.figure import Figure
from plotly.subplots import make_subplots  # pyright: ignore[reportMissingTypeStubs]

from palscope._routing.depths import NO_AUDIO
from palscope.plots._style import legend_above

RIGHT, OTHER, REST = "right answer", "the other clip's answer", "other candidates"
"""What a candidate is to a clip."""

LOGPROB = "log-probability (nats)"
WITHOUT = f"right answer, {NO_AUDIO}"

# Okabe and Ito's, with the kind of point in plotly and in matplotlib: told twice.
_LOOKS = {
    REST: ("#B0B0B0", "circle", "o"),
    OTHER: ("#D55E00", "diamond", "D"),
    RIGHT: ("#0072B2", "square", "s"),
}
_GREY = "#555555"


def choices_against(table: pd.DataFrame) -> go.Figure:
    """Log-probability of each candidate: a row of panels a clip, a column a panel.

    Points are joined where `x` is a number. Stars are the two answers on the model's own route; a
    dotted line, drawn in every panel of the clip, is the right answer without audio.

    Args:
        table: one row a (clip, panel, x, choice): `clip, panel, x, choice, logprob`; `axis`, the
            title of that panel's horizontal axis; `role`, of `RIGHT, OTHER, REST`; and `own`,
            whether it is the model's own route. Rows of the panel `NO_AUDIO` are the dotted line.
    """
    clips, panels = _axes(table)
    figure: Any = make_subplots(
        rows=len(clips),
        cols=len(panels),
        shared_yaxes=True,
        column_titles=list(panels),
        horizontal_spacing=0.03,
        vertical_spacing=0.24 / len(clips),
    )
    named: set[str] = set()
    for clip, panel, role, rows in _lines(table):
        colour, mark, _ = _LOOKS[role]
        place = {"row": clips.index(clip) + 1, "col": list(panels).index(panel) + 1}
        figure.add_scatter(
            x=rows["x"],
            y=rows["logprob"],
            name=role,
            legendgroup=role,
            showlegend=role not in named,
            mode="lines+markers" if _joined(rows) else "markers",
            line={"color": colour, "width": 1 if role == REST else 2},
            marker={"color": colour, "symbol": mark, "size": 4 if role == REST else 8},
            customdata=rows["choice"],
            hovertemplate="%{customdata}: %{y:.2f} (%{x})",
            **place,
        )
        own = rows[rows["own"]]
        if len(own) and role != REST:
            figure.add_scatter(
                x=own["x"],
                y=own["logprob"],
                mode="markers",
                marker={"color": colour, "symbol": "star", "size": 14},
                legendgroup=role,
                showlegend=False,
                hoverinfo="skip",
                **place,
            )
        named.add(role)
    for number, clip in enumerate(clips, start=1):
        for height in _without_audio(table, clip):
            for column, _ in enumerate(panels, start=1):
                figure.add_hline(
                    y=height,
                    line={"color": _GREY, "width": 1, "dash": "dot"},
                    row=number,
                    col=column,
                    name=WITHOUT,
                    showlegend=WITHOUT not in named,
                )
                named.add(WITHOUT)
        figure.update_yaxes(title=f"{clip}<br>{LOGPROB}", row=number, col=1)
    for column, axis in enumerate(panels.values(), start=1):
        figure.update_xaxes(title=axis, row=len(clips), col=column)
    figure.update_layout(
        template="plotly_white",
        margin={"l": 70, "r": 20, "t": 90, "b": 50},
        legend={"orientation": "h", "y": 1 + 0.14 / len(clips), "yanchor": "bottom", "x": 0},
        height=160 + 240 * len(clips),
    )
    return figure


def choices_against_paper(table: pd.DataFrame) -> Figure:
    """As `choices_against`, for print."""
    clips, panels = _axes(table)
    size = (1.4 + 2.6 * len(panels), 0.9 + 2.2 * len(clips))
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(len(clips), len(panels), sharey="row", squeeze=False)
    drawn: dict[str, Any] = {}
    for clip, panel, role, rows in _lines(table):
        axis = axes[clips.index(clip), list(panels).index(panel)]
        colour, _, mark = _LOOKS[role]
        (drawn[role],) = axis.plot(
            rows["x"],
            rows["logprob"],
            f"{mark}-" if _joined(rows) else mark,
            color=colour,
            markersize=2 if role == REST else 4,
            linewidth=0.6 if role == REST else 1.3,
        )
        own = rows[rows["own"] & (role != REST)]
        axis.plot(own["x"], own["logprob"], "*", color=colour, markersize=9)
    for row, clip in zip(axes, clips, strict=True):
        row[0].set_ylabel(f"{clip}\n{LOGPROB}", fontsize="small")
        for axis in row:
            for height in _without_audio(table, clip):
                drawn[WITHOUT] = axis.axhline(height, color=_GREY, linewidth=0.8, linestyle=":")
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25, linewidth=0.5)
            axis.tick_params(labelsize="small")
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.set_title(panel, fontsize="small")
    for axis, title in zip(axes[-1], panels.values(), strict=True):
        axis.set_xlabel(title, fontsize="small")
    legend_above(figure, drawn, 2)
    return figure


def _axes(table: Any) -> tuple[list[str], dict[str, str]]:
    """The clips, and each panel with the title of its horizontal axis, in the table's order."""
    shown = table[table["panel"] != NO_AUDIO]
    return list(shown["clip"].unique()), dict(zip(shown["panel"], shown["axis"], strict=True))


def _lines(table: Any) -> list[tuple[str, str, str, Any]]:
    """Clip, panel and role of each candidate's points; those that matter come last, on top."""
    shown = table[table["panel"] != NO_AUDIO]
    groups = shown.groupby(["clip", "panel", "role", "choice"], sort=False)
    lines: list[tuple[str, str, str, Any]] = []
    for (clip, panel, role, _), rows in groups:
        lines.append((clip, panel, role, rows.sort_values("x") if _joined(rows) else rows))
    return sorted(lines, key=lambda line: list(_LOOKS).index(line[2]))


def _joined(rows: Any) -> bool:
    return pd.api.types.is_number(rows["x"].iloc[0])


def _without_audio(table: Any, clip: str) -> list[float]:
    chosen = (table["clip"] == clip) & (table["panel"] == NO_AUDIO) & (table["role"] == RIGHT)
    return table.loc[chosen, "logprob"].tolist()

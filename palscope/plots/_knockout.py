"""Figures of attention knockout: effect by depth, and by seconds and depth; for screens and print.

A window in which a cut changes nothing is no proof that the sound was not read: tokens that read it
below the window carry it on (`palscope.measures._knockout`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from plotly.subplots import make_subplots  # pyright: ignore[reportMissingTypeStubs]

from palscope.measures._knockout import ALL_AUDIO
from palscope.plots import _spread as spread
from palscope.plots import _style as style
from palscope.plots._style import legend_above

EFFECT_NAMES = {
    "logprob_change": ("change of the answer's", "log-probability (nats)"),
    "logit_diff_change": ("change of the", "logit difference (nats)"),
    "kl": ("KL from the run", "without cuts (nats)"),
    "flipped": ("share of answers", "that change"),
}
_WINDOW = "middle of the layers that are cut"
_EVERYWHERE = "dotted: cut in all layers"
_NOT_READ = "stretch that text does not read"
_READERS = {
    "text": "all text reads",
    "last": "the last token reads",
    "generated": "generated text reads",
}
_SOUND = "sound reads"
_TEXT_CONTROL = "text (control)"
_CONTROL_COLOUR = "#7f7f7f"
_ALL_COLOUR = "#000000"
_MARKS = {"frames": ("circle", "o"), "summary": ("diamond", "D"), ALL_AUDIO: ("square", "s")}
_DASHES = {"solid": "-", "dash": "--"}


def effect_by_depth(effects: pd.DataFrame, effect: str = "logprob_change") -> go.Figure:
    """Effect against depth: a row of panels a reader, a column a group, a line what is not read.

    Args:
        effects: `knockout_effects` by `group, queries, pathway, first_layer, last_layer`; the
            widest window of a line is drawn as a dotted level: cut in all layers.
        effect: of which it is, for the axis.
    """
    table, readers, groups = _lines(effects)
    figure: Any = make_subplots(
        rows=len(readers),
        cols=len(groups),
        shared_xaxes=True,
        shared_yaxes="rows",  # pyright: ignore[reportArgumentType]
        subplot_titles=_titles(table, readers, groups, "<br>"),
        horizontal_spacing=0.03,
        vertical_spacing=0.16 / len(readers),
    )
    named: set[str] = set()
    for (reader, group, line), rows in table.groupby(["reader", "group", "line"], sort=False):
        place: dict[str, Any] = {"row": readers.index(reader) + 1, "col": groups.index(group) + 1}
        look = _look(rows)
        rows, whole = _split(rows)
        spread.band(figure, rows, "middle", look["colour"], legendgroup=line, **place)
        figure.add_scatter(
            x=rows["middle"],
            y=rows["effect"],
            name=line,
            legendgroup=line,
            showlegend=line not in named,
            mode="lines+markers",
            line={"color": look["colour"], "width": 2, "dash": look["dash"]},
            marker={"size": 5, "symbol": look["mark"][0]},
            customdata=rows[["first_layer", "last_layer", "n"]],
            hovertemplate="layers %{customdata[0]} to %{customdata[1]}: %{y:.2f}, "
            "%{customdata[2]} clips",
            **place,
        )
        for level in whole["effect"]:
            figure.add_hline(
                y=level, line={"color": look["colour"], "dash": "dot", "width": 1.2}, **place
            )
        named.add(line)
    figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "y": 1 + 0.3 / len(readers), "yanchor": "bottom", "x": 0},
        legend_title_text=f"{_EVERYWHERE}; else",
        margin={"l": 80, "r": 20, "t": 110, "b": 60},
        height=160 + 230 * len(readers),
    )
    figure.update_xaxes(title=_WINDOW, row=len(readers))
    figure.update_yaxes(title="<br>".join(EFFECT_NAMES[effect]), col=1)
    return figure


def effect_by_depth_paper(effects: pd.DataFrame, effect: str = "logprob_change") -> Figure:
    """As `effect_by_depth`, for print."""
    table, readers, groups = _lines(effects)
    size = (max(5.0, 1.4 + 2.5 * len(groups)), 1.0 + 2.4 * len(readers))
    figure = Figure(figsize=size, layout="constrained")
    panels: Any = figure.subplots(
        len(readers), len(groups), sharex=True, sharey="row", squeeze=False
    )
    lines: dict[str, Any] = {}
    for (reader, group, line), rows in table.groupby(["reader", "group", "line"], sort=False):
        axes = panels[readers.index(reader), groups.index(group)]
        look = _look(rows)
        rows, whole = _split(rows)
        spread.band_paper(axes, rows, "middle", look["colour"])
        (lines[line],) = axes.plot(
            rows["middle"],
            rows["effect"],
            color=look["colour"],
            linestyle=_DASHES[look["dash"]],
            marker=look["mark"][1],
            markersize=3,
        )
        for level in whole["effect"]:
            axes.axhline(level, color=look["colour"], linestyle=":", linewidth=1)
    titles = _titles(table, readers, groups, "\n")
    for axes, title in zip(panels.flat, titles, strict=True):
        axes.set_title(title, fontsize="small")
        axes.axhline(0, color="black", linewidth=0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
    for axes in panels[:, 0]:
        axes.set_ylabel("\n".join(EFFECT_NAMES[effect]))
    for axes in panels[-1]:
        axes.set_xlabel(_WINDOW)
    lines[_EVERYWHERE] = Line2D([], [], color="black", linestyle=":", linewidth=1)
    legend_above(figure, lines, 3)
    return figure


def segments_by_depth(effects: pd.DataFrame, effect: str = "logprob_change") -> go.Figure:
    """Heat map of the effect of cutting single stretches of a clip, by window of layers.

    Args:
        effects: `knockout_effects` by `segment, first_layer, last_layer`, of one pathway and
            reader, the segments in order of time from the first row on.
    """
    values, segments, windows = _grid(effects)
    most = max(float(np.nanmax(np.abs(values))), 1e-9)
    figure: Any = go.Figure(
        go.Heatmap(
            z=values,
            x=windows,
            y=segments,
            colorscale="RdBu",
            zmin=-most,
            zmax=most,
            colorbar={"title": "<br>".join(EFFECT_NAMES[effect])},
            hovertemplate="%{y}, layers %{x}: %{z:.2f}<extra></extra>",
        )
    )
    figure.update_layout(
        template="plotly_white",
        xaxis_title="layers that are cut",
        yaxis_title=_NOT_READ,
        height=200 + 40 * len(segments),
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def segments_by_depth_paper(effects: pd.DataFrame, effect: str = "logprob_change") -> Figure:
    """As `segments_by_depth`, for print."""
    values, segments, windows = _grid(effects)
    most = max(float(np.nanmax(np.abs(values))), 1e-9)
    figure = Figure(
        figsize=(2.6 + 0.5 * len(windows), 1.4 + 0.35 * len(segments)), layout="constrained"
    )
    axes: Any = figure.subplots()
    picture = axes.imshow(values, aspect="auto", cmap="RdBu", vmin=-most, vmax=most)
    axes.set_xticks(range(len(windows)), labels=windows, rotation=45, ha="right", fontsize="small")
    axes.set_yticks(range(len(segments)), labels=segments)
    axes.set(xlabel="layers that are cut", ylabel=_NOT_READ.replace("text ", "text\n"))
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label="\n".join(EFFECT_NAMES[effect]))
    return figure


# -- tables ---------------------------------------------------------------------------------------


def _lines(effects: pd.DataFrame) -> tuple[Any, list[str], list[str]]:
    """The table with `reader` (row of panels), `line` (its name) and `middle` of each window."""
    table: Any = effects.copy()
    of_text = table["queries"].isin(list(_READERS))
    table["reader"] = table["queries"].map(_READERS).where(of_text, _SOUND)
    control = table["pathway"].eq("text")
    between = table["queries"].astype(str) + " → " + table["pathway"].astype(str)
    table["line"] = table["pathway"].where(of_text, between).mask(control, _TEXT_CONTROL)
    table["middle"] = (table["first_layer"] + table["last_layer"]) / 2
    # What all streams do together is drawn below what each of them does.
    together = table["pathway"].eq(ALL_AUDIO)
    table = table.loc[[*table.index[together], *table.index[~together]]]
    there = _names(table, "reader")
    readers = [reader for reader in (*_READERS.values(), _SOUND) if reader in there]
    return table, readers, _names(effects, "group")


def _names(table: Any, column: str) -> list[str]:
    return [str(each) for each in table[column].unique()]


def _split(rows: Any) -> tuple[Any, Any]:
    """The sliding windows of a line, and its cut in all layers."""
    span = rows["last_layer"] - rows["first_layer"]
    whole = span.gt(span.min()) & span.eq(span.max())
    return rows[~whole].sort_values("middle"), rows[whole]


def _look(rows: Any) -> dict[str, Any]:
    pathway, queries = str(rows["pathway"].iloc[0]), str(rows["queries"].iloc[0])
    if pathway == "text":
        return {"colour": _CONTROL_COLOUR, "dash": "dash", "mark": ("x", "x")}
    colour = _ALL_COLOUR if pathway == ALL_AUDIO else style.colours([pathway])[pathway]
    dash = "solid" if queries in _READERS or queries == pathway else "dash"
    return {"colour": colour, "dash": dash, "mark": _MARKS.get(pathway, ("square", "s"))}


def _titles(table: Any, readers: list[str], groups: list[str], between: str) -> list[str]:
    clips: dict[Any, int] = table.groupby("group")["n"].max().to_dict()
    return [
        f"{reader}{between}{group}, {clips[group]} clip{'s' if clips[group] > 1 else ''}"
        for reader in readers
        for group in groups
    ]


def _grid(effects: pd.DataFrame) -> tuple[np.ndarray, list[str], list[str]]:
    """Effects by segment and window, the sliding windows bottom first, all layers at the end."""
    table: Any = effects.copy()
    for end in ("first_layer", "last_layer"):
        table[end] = table[end].astype(int)
    table["window"] = table["first_layer"].astype(str) + " to " + table["last_layer"].astype(str)
    table["span"] = table["last_layer"] - table["first_layer"]
    windows = _names(table.sort_values(["span", "first_layer"], kind="stable"), "window")
    segments = _names(table, "segment")
    wide = table.pivot(index="segment", columns="window", values="effect")
    return wide.loc[segments, windows].to_numpy(dtype=float), segments, windows

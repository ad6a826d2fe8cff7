"""Figures of activation patching: for screens (plotly), and for print."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]
from matplotlib.figure import Figure

from palscope.plots import _spread as spread
from palscope.plots import _style as style

EFFECT = "share of the difference restored"
BASELINE = "random clip"

_TITLES = {"place": "patched stretch", "head": style.HEAD, "stream": "patched stream"}
_SITES = {
    "waveform": "waveform (the sound itself)",
    "encoder_output": "encoder output",
    "connector_output": "connector output",
    "audio_state": "audio state, all layers",
}
# Okabe and Ito's palette, for what is no stream.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = (("circle", "o"), ("diamond", "D"), ("square", "s"), ("triangle-up", "^"), ("x", "X"))


def note(
    effects: pd.DataFrame,
    controls: pd.DataFrame,
    pairs: int,
    all_pairs: bool,
    direction: str,
    metric: str,
) -> str:
    """What must be said beside a figure: direction, metric, pairs left out, controls.

    Args:
        effects: of `patching_effects`, one kind of pair.
        controls: of `check_controls`.
        pairs: how many were measured.
        all_pairs: whether those that are not answered right count too.
    """
    rows: Any = effects
    used = int(rows["n"].max())
    left = "all pairs" if all_pairs else f"{pairs - used} not answered right are left out"
    stated = [
        f"{row['control']}-patch {row['expected']:g} (worst pair off by {row['worst']:.1g})"
        for row in controls.to_dict("records")
    ]
    other = rows.loc[rows["run"] == "other", "effect"]
    if len(other):
        stated.append(f"{BASELINE} {other.min():.2f} to {other.max():.2f}")
    return f"{direction}, {metric}; {used} of {pairs} pairs ({left}); {', '.join(stated)}"


def effects_by_site(effects: pd.DataFrame, note: str = "") -> go.Figure:
    """The effect of each stretch of sound at each site, with intervals.

    Hollow marks are the random-clip baseline: another clip's values in the same place.

    Args:
        effects: of `patching_effects` by `site` and `place`.
        note: a line under the figure.
    """
    figure: Any = go.Figure()
    for line in _by_site(effects):
        shape, _ = _MARKS[line.number % len(_MARKS)]
        figure.add_scatter(
            x=line.x,
            y=line.rows["effect"],
            error_y=spread.error_bars(line.rows, "effect"),
            name=line.name,
            mode="markers",
            marker={"symbol": shape + ("-open" if line.baseline else ""), "size": 8},
            marker_color=line.colour,
            text=line.rows["place"],
            hovertemplate="%{text}: %{y:.3f}",
        )
        spread.points(figure, line.rows, line.x, line.colour)
    places = _order(effects, "place")
    figure.update_layout(**_layout(note), height=420)
    figure.update_xaxes(
        title=_TITLES["place"], tickvals=list(range(len(places))), ticktext=places, zeroline=False
    )
    _reference_lines(figure)
    figure.update_yaxes(title=EFFECT)
    return figure


def effects_by_site_paper(effects: pd.DataFrame, note: str = "") -> Figure:
    """As `effects_by_site`, for print."""
    places = _order(effects, "place")
    figure, axes = _one_panel((max(5.5, 1.2 + 1.5 * len(places)), 4.0), note)
    for line in _by_site(effects):
        _, mark = _MARKS[line.number % len(_MARKS)]
        rows = line.rows
        axes.errorbar(
            line.x,
            rows["effect"],
            yerr=spread.error_bars_paper(rows, "effect"),
            fmt=mark,
            color=line.colour,
            markerfacecolor="white" if line.baseline else line.colour,
            markersize=5,
            linewidth=1.2,
            label=line.name,
        )
        spread.points_paper(axes, rows, line.x, line.colour)
    axes.set_xticks(range(len(places)), labels=places)
    _reference_lines_paper(axes)
    axes.set(xlabel=_TITLES["place"], ylabel=EFFECT, xlim=(-0.5, len(places) - 0.5))
    figure.legend(frameon=False, ncols=2, loc="outside upper left", fontsize="small")
    return figure


def effect_map(effects: pd.DataFrame, x: str, note: str = "") -> go.Figure:
    """The effect of every cell, layers upwards. Cells in which nothing stands are blank.

    Args:
        effects: of `patching_effects` by `layer`, `last_layer` (where layers are patched together)
            and `x`.
        x: `place`, `stream` or `head`.
        note: a line under the figure.
    """
    wide = _wide(effects, x)
    most = _most(wide)
    figure: Any = go.Figure(
        go.Heatmap(
            z=wide.to_numpy(),
            x=[_shown(name) for name in wide.columns],
            y=list(wide.index),
            colorscale=style.DIFFERENCE_SCALE,
            zmin=-most,
            zmax=most,
            colorbar={"title": {"text": EFFECT.replace(" the", "<br>the")}},
            hovertemplate="layer %{y}, %{x}: %{z:.3f}<extra></extra>",
            hoverongaps=False,
        )
    )
    figure.update_layout(**_layout(note), height=max(340, 16 * len(wide) + 150))
    figure.update_xaxes(title=_TITLES[x], type="category")
    figure.update_yaxes(title=_map_title(effects), type="category")
    return figure


def effect_map_paper(effects: pd.DataFrame, x: str, note: str = "") -> Figure:
    """As `effect_map`, for print."""
    wide = _wide(effects, x)
    most = _most(wide)
    size = (min(10.0, 3.0 + 0.75 * wide.shape[1]), min(9.0, max(4.4, 0.18 * len(wide) + 2)))
    figure, axes = _one_panel(size, note)
    picture = axes.imshow(
        wide.to_numpy(dtype=float),
        origin="lower",
        aspect="auto",
        cmap=style.DIFFERENCE_SCALE,
        vmin=-most,
        vmax=most,
    )
    columns = [_shown(name) for name in wide.columns]
    long = max(map(len, columns)) > 8
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(len(columns)), labels=columns, **turned)
    every = -(-len(wide) // 16)
    axes.set_yticks(range(0, len(wide), every), labels=list(wide.index[::every]))
    axes.set(xlabel=_TITLES[x], ylabel=_map_title(effects))
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label=EFFECT)
    return figure


def effect_lines(effects: pd.DataFrame, line: str, note: str = "") -> go.Figure:
    """The effect by layer, a line for each value of `line`, with bands; dotted: random clip.

    Args:
        effects: of `patching_effects` by `layer`, `last_layer` and `line`.
        line: `place` or `stream`.
        note: a line under the figure.
    """
    figure: Any = go.Figure()
    for drawn in _lines(effects, line):
        rows = drawn.rows
        if not drawn.baseline:
            spread.band(figure, rows, "layer", drawn.colour, legendgroup=drawn.name)
        figure.add_scatter(
            x=rows["layer"],
            y=rows["effect"],
            name=drawn.name,
            legendgroup=drawn.name,
            mode="lines" if drawn.baseline else "lines+markers",
            line={
                "color": drawn.colour,
                "width": 1.2 if drawn.baseline else 2,
                "dash": "dot" if drawn.baseline else "solid",
            },
            marker={"symbol": _MARKS[drawn.number % len(_MARKS)][0], "size": 6},
            hovertemplate="layer %{x}: %{y:.3f}",
        )
    figure.update_layout(**_layout(note), height=420)
    _reference_lines(figure)
    figure.update_xaxes(title=_layer_title(effects))
    figure.update_yaxes(title=EFFECT)
    return figure


def effect_lines_paper(effects: pd.DataFrame, line: str, note: str = "") -> Figure:
    """As `effect_lines`, for print."""
    figure, axes = _one_panel((6.4, 4.2), note)
    for drawn in _lines(effects, line):
        rows = drawn.rows
        if drawn.baseline:
            axes.plot(rows["layer"], rows["effect"], ":", color=drawn.colour, linewidth=1.2)
            continue
        spread.band_paper(axes, rows, "layer", drawn.colour)
        mark = _MARKS[drawn.number % len(_MARKS)][1]
        axes.plot(
            rows["layer"],
            rows["effect"],
            f"{mark}-",
            color=drawn.colour,
            label=drawn.name,
            markersize=4,
            linewidth=1.5,
        )
    if (effects["run"] == "other").any():
        axes.plot([], [], ":", color="#555", linewidth=1.2, label=BASELINE)
    _reference_lines_paper(axes)
    axes.set(xlabel=_layer_title(effects), ylabel=EFFECT)
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(frameon=False, ncols=3, loc="outside upper left", fontsize="small")
    return figure


# -- what is drawn --------------------------------------------------------------------------------


class _Drawn:
    """The rows of one series: `rows`, its name and looks."""

    def __init__(self, rows: Any, name: str, colour: str, number: int, baseline: bool) -> None:
        self.rows = rows
        self.name = f"{name}, {BASELINE}" if baseline else name
        self.colour = colour
        self.number = number
        self.baseline = baseline
        self.x: list[float] = []


def _series(effects: Any, by: str) -> list[_Drawn]:
    names = _order(effects, by)
    if by == "site":
        names = [name for name in _SITES if name in names]
    streams = style.colours([])
    colours = {
        name: streams[name] if name in streams else _PALETTE[i % len(_PALETTE)]
        for i, name in enumerate(names)
    }
    found: list[_Drawn] = []
    for run in ("patch", "other"):
        for number, name in enumerate(names):
            rows = effects[(effects["run"] == run) & (effects[by] == name)]
            if len(rows):
                shown = _SITES.get(name, name)
                found.append(_Drawn(rows, shown, colours[name], number, run == "other"))
    return found


def _lines(effects: Any, by: str) -> list[_Drawn]:
    drawn = _series(effects, by)
    for each in drawn:
        each.rows = each.rows.sort_values("layer")
    return drawn


def _by_site(effects: Any) -> list[_Drawn]:
    """A series a site; sites stand beside each other at each place."""
    drawn = _series(effects, "site")
    places = _order(effects, "place")
    sites = len(_order(effects, "site"))
    width = 0.7 / sites
    for each in drawn:
        shift = (each.number - (sites - 1) / 2) * width + (0.3 * width if each.baseline else 0)
        each.x = [places.index(place) + shift for place in each.rows["place"]]
    return drawn


def _order(effects: Any, column: str) -> list[Any]:
    """The values of a column in the order in which the cells have them."""
    return list(effects.loc[effects["run"] == "patch", column].dropna().unique())


def _wide(effects: Any, x: str) -> Any:
    rows = effects[effects["run"] == "patch"].assign(layers=_layer_names(effects))
    wide = rows.pivot(index="layers", columns=x, values="effect")
    names = rows.sort_values("layer")["layers"].unique()
    return wide.reindex(index=names, columns=_order(effects, x))


def _layer_names(effects: Any) -> Any:
    """Layer, or window of layers, as text."""
    first = effects["layer"].map(_shown, na_action="ignore")
    if "last_layer" not in effects or _from_up(effects):
        return first
    last = effects["last_layer"].map(_shown, na_action="ignore")
    return first.where(first == last, first + "–" + last)


def _from_up(effects: Any) -> bool:
    """Whether each cell patches a layer and all above it."""
    rows = effects[effects["run"] == "patch"]
    if "last_layer" not in rows:
        return False
    return rows["last_layer"].nunique() == 1 and rows["layer"].nunique() > 1


def _layer_title(effects: Any) -> str:
    rows = effects[effects["run"] == "patch"]
    if _from_up(effects):
        return "patched from this layer up"
    wide = int((rows["last_layer"] - rows["layer"]).max()) + 1 if "last_layer" in rows else 1
    return style.LAYER if wide == 1 else f"layer, first of {wide} patched together"


def _map_title(effects: Any) -> str:
    """The title of an axis whose ticks name the windows."""
    title = _layer_title(effects)
    return title if title == style.LAYER or _from_up(effects) else "layers, patched together"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


def _most(wide: Any) -> float:
    return max(0.05, float(np.nanmax(np.abs(wide.to_numpy(dtype=float)), initial=0.0)))


# -- frames ---------------------------------------------------------------------------------------


def _layout(note: str) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "margin": {"l": 60, "r": 20, "t": 90, "b": 80},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "annotations": [
            {
                "text": note,
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": 0,
                "yshift": -70,
                "xanchor": "left",
                "showarrow": False,
                "font": {"size": 11},
            }
        ],
    }


def _reference_lines(figure: Any) -> None:
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": "#555", "width": 1, "dash": "dot"})


def _reference_lines_paper(axes: Any) -> None:
    for level in (0, 1):
        axes.axhline(level, color="#555", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)


def _one_panel(size: tuple[float, float], note: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    if note:
        figure.supxlabel(note, fontsize=7, x=0.01, ha="left", wrap=True)
    return figure, axes

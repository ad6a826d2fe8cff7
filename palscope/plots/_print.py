"""Draws a figure for paper, with matplotlib."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, cast

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Paper
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from palscope.plots._cells import Heat, Spectrogram
from palscope.plots._figure import Figure, Mark, Panel, named_ticks
from palscope.plots._grammar import Axis, Bars, Line, Points, Rule, Span, Spread, Steps
from palscope.plots._looks import AMOUNT, BLANK_GROUND, DASHES, HATCHES, MARKERS, SIGNED, Look

_SMALL = 7
_LEVEL = 12
"""Letters of a name that stands level under its place; longer ones slant."""
_FURTHER = 0.9
"""Inches of a panel beside its marks: ticks and titles."""


def draw(figure: Figure) -> Paper:
    """The figure in matplotlib."""
    rows, columns = figure.grid
    widths, heights = figure.widths(), figure.heights()
    bars = 0.9 * bool(figure.colours())
    named, lines = figure.legend(), figure.lines()
    per_row = max(1, round((sum(widths) + _FURTHER) / 1.9))
    size = (
        sum(widths) + _FURTHER + 0.3 * (columns - 1) + bars,
        sum(heights)
        + 0.6 * rows
        + 0.22 * -(-len(named) // per_row)
        + 0.14 * len(lines)
        + _slanted(figure),
    )
    paper = Paper(figsize=size, layout="constrained")
    ratios = {"width_ratios": widths, "height_ratios": heights}
    grid: Any = paper.subplots(rows, columns, squeeze=False, gridspec_kw=ratios)
    used = {(panel.row, panel.column) for panel in figure.panels}
    for row, column in np.ndindex(rows, columns):
        if (row, column) not in used:
            grid[row, column].remove()
    for panel in figure.panels:
        _panel(grid[panel.row, panel.column], figure, panel)
    _colour_bars(paper, grid, figure)
    if named:
        handles = [_handle(kind, look) for kind, look in named.values()]
        names = [_text(name) for name in named]
        paper.legend(
            handles, names, frameon=False, ncols=per_row, fontsize="small", loc="outside upper left"
        )
    said = "\n".join(map(_text, lines))
    paper.supxlabel(said, fontsize=_SMALL, x=0.01, ha="left")
    return paper


# -- panels ---------------------------------------------------------------------------------------


def _panel(axes: Any, figure: Figure, panel: Panel) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)
    for order, mark in enumerate(panel.marks):
        _mark(mark, axes, figure, panel, 2 + order / 100)
    if not panel.marks:
        axes.text(0.5, 0.5, panel.empty, ha="center", va="center", transform=axes.transAxes)
    title = figure.title(panel)
    if title:
        axes.set_title(_text(title), fontsize="small")
    shown = figure.shown(panel)
    _ticks(axes.xaxis, panel.x, figure.scale(panel.x), turn=True)
    _ticks(axes.yaxis, panel.y, figure.scale(panel.y))
    axes.tick_params(labelsize="small", labelbottom=shown[0], labelleft=shown[1])
    axes.set_xlabel(_text(panel.x.label) if shown[0] else "", fontsize="small")
    axes.set_ylabel(_text(figure.y_label(panel)) if shown[1] else "", fontsize="small")
    if panel.heats:
        axes.set_facecolor(BLANK_GROUND[0])
        axes.grid(visible=False)


def _ticks(axis: Any, of: Axis, scale: tuple[float, float], *, turn: bool = False) -> None:
    axis.axes.set(**{f"{axis.axis_name}lim": scale})
    placed = named_ticks(of, scale)
    if placed is not None:
        places, labels = placed
        long = turn and max(map(_longest, labels), default=0) > _LEVEL
        turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axis.set_ticks(places, labels=[_text(label) for label in labels], **turned)


# -- marks ----------------------------------------------------------------------------------------


@singledispatch
def _mark(mark: Span, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    axes.axvspan(mark.start, mark.end, color="#888888", alpha=0.18, linewidth=0, zorder=0)


@_mark.register
def _line(line: Line, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    x, colour = panel.x.places(line.x), line.look.colour()
    for band in line.bands:
        sure = cast(Spread, line.spread)
        axes.fill_between(
            x[band], sure.low[band], sure.high[band],
            color=colour, alpha=0.2, linewidth=0, zorder=order - 0.5,
        )  # fmt: skip
    if line.alone:
        sides = cast(Spread, line.spread).sides(line.y)[:, line.alone]
        _error_bars(axes, x[line.alone], line.y[line.alone], colour, order, yerr=sides)
    _values(axes, line.spread, x, colour)
    look = {"color": colour, "zorder": order, **_stroke(line.look), **_marker(line.look)}
    axes.plot(line.along(x), line.along(line.y), **look)


@_mark.register
def _points(points: Points, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    x, y, colour = panel.x.places(points.x), panel.y.places(points.y), points.look.colour()
    sides = {"xerr": _sides(points.x_spread, x), "yerr": _sides(points.spread, y)}
    _error_bars(axes, x, y, colour, order, **sides)
    axes.plot(x, y, linestyle="none", color=colour, zorder=order, **_marker(points.look, 1.4))
    _values(axes, points.spread, x, colour)
    _values(axes, points.x_spread, y, colour, across=True)


@_mark.register
def _bars(bars: Bars, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    middles, width = panel.beside(bars)
    axes.bar(
        middles, bars.y, width,
        yerr=_sides(bars.spread, bars.y),
        color=bars.look.colour(), hatch=HATCHES[bars.look.hatch], edgecolor="white", linewidth=0.5,
        error_kw={"elinewidth": 0.8, "capsize": 1.5}, zorder=order,
    )  # fmt: skip
    _values(axes, bars.spread, middles, Look("ink").colour())


@_mark.register
def _steps(steps: Steps, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    x, y, _ = steps.corners
    axes.plot(x, y, color=steps.look.colour(), zorder=order, **_stroke(steps.look))


@_mark.register
def _heat(heat: Heat, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    of = figure.colours()[heat.label]
    scale = {"cmap": SIGNED if of.signed else AMOUNT, "vmin": of.low, "vmax": of.high}
    masked = np.ma.masked_invalid(heat.values)
    axes.pcolormesh(*heat.edges(panel.x, panel.y), masked, rasterized=True, **scale)


@_mark.register
def _sound(sound: Spectrogram, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    edges = sound.edges(panel.x, panel.y)
    axes.pcolormesh(*edges, sound.image.values, rasterized=True, cmap=AMOUNT)


@_mark.register
def _rule(rule: Rule, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    x, y = figure.ends(panel, rule)
    axes.plot(x, y, color=rule.look.colour(), zorder=1, **_stroke(rule.look))


def _values(
    axes: Any, spread: Spread | None, places: np.ndarray, colour: str, *, across: bool = False
) -> None:
    if spread is None:
        return
    at, values = spread.each(places)
    x, y = (values, at) if across else (at, values)
    axes.plot(x, y, "o", color=colour, markersize=3.5, alpha=0.45, markeredgewidth=0, zorder=1.5)


def _error_bars(axes: Any, x: Any, y: Any, colour: str, order: float, **sides: Any) -> None:
    look = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "capsize": 1.5, "zorder": order}
    axes.errorbar(x, y, **look, **sides)


def _sides(spread: Spread | None, middle: np.ndarray) -> Any:
    return None if spread is None else spread.sides(middle)


def _stroke(look: Look) -> dict[str, Any]:
    return {"linestyle": DASHES[look.dash], "linewidth": 0.9 if look.light else 1.5}


def _marker(look: Look, size: float = 1.0) -> dict[str, Any]:
    return {
        "marker": MARKERS[look.marker] if look.marker else ".",
        "markersize": size * (3.5 if look.marker else 2) * look.size,
        "markerfacecolor": "white" if look.hollow else look.colour(),
    }


# -- beside the panels ----------------------------------------------------------------------------


def _handle(kind: type[Mark], look: Look) -> Any:
    colour = look.colour()
    if kind is Bars:
        return Patch(facecolor=colour, hatch=HATCHES[look.hatch], edgecolor="white")
    if kind is Points:
        return Line2D([], [], linestyle="none", color=colour, **_marker(look, 1.4))
    marker = _marker(look) if kind is Line and look.marker else {}
    return Line2D([], [], color=colour, **_stroke(look), **marker)


def _colour_bars(paper: Paper, grid: Any, figure: Figure) -> None:
    for label, of in figure.colours().items():
        shown: Any = ScalarMappable(Normalize(of.low, of.high), SIGNED if of.signed else AMOUNT)
        bar = paper.colorbar(shown, ax=[grid[panel.row, panel.column] for panel in of.panels])
        bar.set_label(_text(figure.colour_label(label)), fontsize="small")
        bar.ax.tick_params(labelsize="small")


def _text(text: str) -> str:
    """As it is: matplotlib would take a pair of dollars for mathematics."""
    return text.replace("$", r"\$")


def _slanted(figure: Figure) -> float:
    """Inches that slanted names take."""
    longest = max((_longest(n) for panel in figure.panels for n in panel.x.categories), default=0)
    return 0.04 * longest if longest > _LEVEL else 0.0


def _longest(text: str) -> int:
    """Letters of its longest line."""
    return max(map(len, text.split("\n")))

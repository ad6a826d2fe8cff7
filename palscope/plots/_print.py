"""Draws a figure for paper, with matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import Any, cast

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Paper
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from palscope.plots._cells import Heat, Spectrogram
from palscope.plots._figure import BESIDE, PER_INCH, Figure, Mark, Panel, named_ticks
from palscope.plots._grammar import Axis, Bars, Line, Points, Rule, Span, Spread, Steps
from palscope.plots._looks import AMOUNT, BLANK_GROUND, DASHES, HATCHES, MARKERS, SIGNED, Look
from palscope.plots._network import Edges, Nodes

_SMALL = 7
OPACITY = 0.75
"""Of edges, so that those below show through."""
_EDGE = 0.06
"""Inches between the legend and the paper's edge."""
_LINE = 0.14
"""Inches of a line of the caption, or of a further line of a title or label."""


def draw(figure: Figure) -> Paper:
    """The figure in matplotlib."""
    rows, columns = figure.grid
    widths, heights = figure.widths(), figure.heights()
    bars = 0.9 * bool(figure.colours())
    lines = figure.lines()
    wide = sum(widths) + BESIDE + 0.3 * (columns - 1) + bars
    paper = Paper(figsize=(wide, 1), layout="constrained")
    named = _legend(paper, figure)
    further = len(lines) + sum(sum(figure.further_lines(row)) for row in range(rows))
    tall = sum(heights) + 0.6 * rows + named[1] + _LINE * further + _slanted(figure)
    paper.set_size_inches(max(wide, named[0]), tall)
    ratios = {"width_ratios": widths, "height_ratios": heights}
    grid: Any = paper.subplots(rows, columns, squeeze=False, gridspec_kw=ratios)
    used = {(panel.row, panel.column) for panel in figure.panels}
    for row, column in np.ndindex(rows, columns):
        if (row, column) not in used:
            grid[row, column].remove()
    for panel in figure.panels:
        _panel(grid[panel.row, panel.column], figure, panel)
    _colour_bars(paper, grid, figure)
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
    _ticks(axes.xaxis, panel.x, figure.scale(panel.x), slant=_slants(figure, panel))
    _ticks(axes.yaxis, panel.y, figure.scale(panel.y))
    axes.tick_params(labelsize="small", labelbottom=shown[0], labelleft=shown[1])
    axes.set_xlabel(_text(figure.x_label(panel)) if shown[0] else "", fontsize="small")
    axes.set_ylabel(_text(figure.y_label(panel)) if shown[1] else "", fontsize="small")
    if panel.heats:
        axes.set_facecolor(BLANK_GROUND[0])
        axes.grid(visible=False)


def _ticks(axis: Any, of: Axis, scale: tuple[float, float], *, slant: bool = False) -> None:
    axis.axes.set(**{f"{axis.axis_name}lim": scale})
    placed = named_ticks(of, scale)
    if placed is not None:
        places, labels = placed
        turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slant else {}
        axis.set_ticks(places, labels=[_text(label) for label in labels], **turned)


def _slants(figure: Figure, panel: Panel) -> bool:
    """Whether the names along x are too long to stand level beside each other."""
    names = _along(figure, panel)
    room = PER_INCH * figure.widths()[panel.column] / max(1, len(names))
    return _longest(names) + 1 > room


def _along(figure: Figure, panel: Panel) -> list[str]:
    placed = named_ticks(panel.x, figure.scale(panel.x))
    return placed[1] if placed else []


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
            color=colour, alpha=panel.band_opacity, linewidth=0, zorder=0.9,
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


@_mark.register
def _edges(edges: Edges, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    look = {"color": edges.look.colour(), "linestyle": DASHES[edges.look.dash], "zorder": 1.5}
    for width, mine in edges.by_width:
        x, y = edges.lines(mine)
        axes.plot(x, y, linewidth=0.7 * width, alpha=OPACITY, **look)


@_mark.register
def _nodes(nodes: Nodes, axes: Any, figure: Figure, panel: Panel, order: float) -> None:
    look = {"color": nodes.look.colour(), "zorder": order, **_marker(nodes.look, 1.4)}
    axes.plot(nodes.x, nodes.y, linestyle="none", **look)
    for x, y, label in zip(nodes.x, nodes.y, nodes.labels, strict=True):
        beside = {"textcoords": "offset points", "va": "center", "fontsize": _SMALL - 1}
        axes.annotate(_text(label), (x, y), (3, 0), zorder=order, **beside)


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


def _legend(paper: Paper, figure: Figure) -> tuple[float, float]:
    """Name the series in as many columns as the paper is wide; the inches that they take."""
    named = figure.legend()
    if not named:
        return 0.0, 0.0
    names = [_text(name) for name in named]
    handles = [_handle(kind, look) for kind, look in named.values()]
    look: dict[str, Any] = {"frameon": False, "fontsize": "small", "loc": "outside upper left"}
    columns = len(named)
    while True:
        legend = paper.legend(handles, names, ncols=columns, **look)
        box = legend.get_window_extent()
        wide, tall = box.width / paper.dpi + 2 * _EDGE, box.height / paper.dpi
        if wide <= paper.get_figwidth() or columns == 1:
            return wide, tall
        legend.remove()
        columns -= 1


def _handle(kind: type[Mark], look: Look) -> Any:
    colour = look.colour()
    if kind is Bars:
        return Patch(facecolor=colour, hatch=HATCHES[look.hatch], edgecolor="white")
    if kind in (Points, Nodes):
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
    slanted = [_along(figure, panel) for panel in figure.panels if _slants(figure, panel)]
    return 0.04 * max(map(_longest, slanted), default=0)


def _longest(names: Iterable[str]) -> int:
    """Letters of the longest line of any."""
    return max((len(line) for name in names for line in name.split("\n")), default=0)

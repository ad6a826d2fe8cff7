"""Draws a figure for the screen, with plotly."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatchmethod
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from palscope.plots._cells import Heat, Spectrogram
from palscope.plots._figure import Figure, Panel, named_ticks
from palscope.plots._grammar import Axis, Bars, Line, Points, Rule, Span, Spread, Steps
from palscope.plots._looks import (
    AMOUNT,
    BLANK_GROUND,
    DARK_GROUNDS,
    LIGHT_GROUNDS,
    SIGNED,
    Look,
    translucent,
)
from palscope.plots._network import Edges, Nodes
from palscope.plots._print import OPACITY

_PIXELS = 100
"""Of an inch of the description."""
_NAMED = 700
"""Pixels of the legend's rows in a page's column."""
_TITLE, _TICKS, _LINE = 0.3, 0.6, 0.16
"""Inches of a panel's title, of the ticks and title of an axis, of a further line of either."""


def draw(figure: Figure, dark: bool) -> go.Figure:
    """The figure in plotly."""
    return _Screen(figure, dark).drawn


class _Screen:
    def __init__(self, figure: Figure, dark: bool) -> None:
        self.figure, self.dark = figure, dark
        self.named: set[str] = set()
        rows, columns = figure.grid
        widths, heights = figure.widths(), figure.heights()
        below = _TICKS + _TITLE if not _shared(figure, 0) else 0.25 + _TITLE
        lines = [figure.further_lines(row) for row in range(rows)]
        between = [label + title for (_, label), (title, _) in pairwise(lines)]
        below += _LINE * max(between, default=0)
        beside = 0.7 if not _shared(figure, 1) else 0.2
        tall = sum(heights) + below * (rows - 1)
        wide = sum(widths) + beside * (columns - 1)
        titles = {(panel.row, panel.column): figure.title(panel) for panel in figure.panels}
        places = [(row, column) for row in range(rows) for column in range(columns)]
        self.drawn: Any = make_subplots(
            rows=rows,
            cols=columns,
            row_heights=heights,
            column_widths=widths,
            horizontal_spacing=beside / wide if columns > 1 else 0,
            vertical_spacing=below / tall if rows > 1 else 0,
            subplot_titles=[_text(titles.get(place, "")) for place in places],
        )
        self.drawn.update_annotations(font_size=13)
        # plotly's first has no number, its second is 2.
        numbers = ["", *map(str, range(2, 2 + len(figure.colours())))]
        self.coloraxes = {
            label: f"coloraxis{i}" for label, i in zip(figure.colours(), numbers, strict=False)
        }
        for panel in figure.panels:
            self._panel(panel)
        self._colour_bars()
        self._around(tall)

    # -- panels -----------------------------------------------------------------------------------

    def _panel(self, panel: Panel) -> None:
        at = {"row": panel.row + 1, "col": panel.column + 1}
        if panel.heats:
            self.drawn.add_shape(
                type="rect", xref="x domain", yref="y domain", x0=0, x1=1, y0=0, y1=1,
                fillcolor=BLANK_GROUND[self.dark], line_width=0, layer="below", **at,
            )  # fmt: skip
        if not panel.marks:
            self.drawn.add_scatter(x=[], y=[], showlegend=False, **at)
            self.drawn.add_annotation(
                text=_text(panel.empty), x=0.5, y=0.5, showarrow=False,
                xref="x domain", yref="y domain", **at,
            )  # fmt: skip
        for mark in panel.marks:  # bands first: none may lie on another's line
            if isinstance(mark, Line):
                self._bands(mark, panel, at)
        for mark in panel.marks:
            self._mark(mark, panel, at)
        for which, shown in zip("xy", self.figure.shown(panel), strict=True):
            self._axis(which, panel, shown, at)

    def _axis(self, which: str, panel: Panel, shown: bool, at: dict[str, int]) -> None:
        axis: Axis = getattr(panel, which)
        scale = self.figure.scale(axis)
        settings: dict[str, Any] = {
            "range": list(scale), "showticklabels": shown, "zeroline": False,
            "showgrid": not panel.heats, "automargin": True,
        }  # fmt: skip
        if shown:
            said = self.figure.y_label if which == "y" else self.figure.x_label
            settings["title"] = {"text": _text(said(panel)), "font": {"size": 13}, "standoff": 6}
        placed = named_ticks(axis, scale)
        if placed is not None:
            settings |= {"tickvals": placed[0], "ticktext": [_text(each) for each in placed[1]]}
        first = next(p for p in self.figure.panels if getattr(p, which) == axis)
        if first is not panel:
            number = first.row * self.figure.grid[1] + first.column + 1
            settings["matches"] = f"{which}{number if number > 1 else ''}"
        update = self.drawn.update_xaxes if which == "x" else self.drawn.update_yaxes
        update(**settings, **at)

    # -- marks ------------------------------------------------------------------------------------

    @singledispatchmethod
    def _mark(self, mark: Span, panel: Panel, at: dict[str, int]) -> None:
        self.drawn.add_vrect(
            x0=mark.start, x1=mark.end, fillcolor="#888888", opacity=0.18,
            line_width=0, layer="below", **at,
        )  # fmt: skip

    @_mark.register
    def _line(self, line: Line, panel: Panel, at: dict[str, int]) -> None:
        x, colour = panel.x.places(line.x), line.look.colour(self.dark)
        self._values(line.spread, x, colour, line.name, at)
        hover = [_hover(panel, line, i) for i in range(len(x))]
        self.drawn.add_scatter(
            x=line.along(x), y=line.along(line.y), text=line.along(hover, ""),
            mode="lines+markers", connectgaps=False,
            line=self._stroke(line.look), marker=self._marker(line.look, 5),
            error_y=_alone(line, colour),
            hovertemplate="%{text}", **self._named(line.name), **at,
        )  # fmt: skip

    def _bands(self, line: Line, panel: Panel, at: dict[str, int]) -> None:
        x, colour = panel.x.places(line.x), line.look.colour(self.dark)
        for band in line.bands:
            low, high = line.spread.low[band], line.spread.high[band]  # pyright: ignore[reportOptionalMemberAccess]
            self.drawn.add_scatter(
                x=np.concatenate([x[band], x[band][::-1]]),
                y=np.concatenate([high, low[::-1]]),
                mode="lines", fill="toself", line={"width": 0},
                fillcolor=translucent(colour, panel.band_opacity),
                hoverinfo="skip", showlegend=False, legendgroup=line.name, **at,
            )  # fmt: skip

    @_mark.register
    def _points(self, points: Points, panel: Panel, at: dict[str, int]) -> None:
        x, y = panel.x.places(points.x), panel.y.places(points.y)
        colour = points.look.colour(self.dark)
        self._values(points.spread, x, colour, points.name, at)
        self._values(points.x_spread, y, colour, points.name, at, across=True)
        self.drawn.add_scatter(
            x=x, y=y, mode="markers", marker=self._marker(points.look, 8),
            error_x=_sides(points.x_spread, x, colour), error_y=_sides(points.spread, y, colour),
            text=[_hover(panel, points, i) for i in range(len(y))],
            hovertemplate="%{text}", **self._named(points.name), **at,
        )  # fmt: skip

    @_mark.register
    def _bars(self, bars: Bars, panel: Panel, at: dict[str, int]) -> None:
        middles, width = panel.beside(bars)
        ink = Look("ink").colour(self.dark)
        self.drawn.add_bar(
            x=middles, y=bars.y, width=width,
            marker={
                "color": bars.look.colour(self.dark),
                "pattern": {"shape": bars.look.hatch, "fgcolor": "#FFFFFF"},
            },
            error_y=_sides(bars.spread, bars.y, ink),
            text=[_hover(panel, bars, i) for i in range(len(bars.y))], textposition="none",
            hovertemplate="%{text}", **self._named(bars.name), **at,
        )  # fmt: skip
        self._values(bars.spread, middles, ink, bars.name, at)

    @_mark.register
    def _steps(self, steps: Steps, panel: Panel, at: dict[str, int]) -> None:
        x, y, spans = steps.corners
        self.drawn.add_scatter(
            x=x, y=y, mode="lines", line=self._stroke(steps.look), connectgaps=False,
            text=spans, hovertemplate="%{text}: %{y:.4f}", **self._named(steps.name), **at,
        )  # fmt: skip

    @_mark.register
    def _heat(self, heat: Heat, panel: Panel, at: dict[str, int]) -> None:
        x, y = heat.edges(panel.x, panel.y)
        self.drawn.add_heatmap(
            x=(x[:-1] + x[1:]) / 2 if heat.even else x,
            y=(y[:-1] + y[1:]) / 2 if heat.even else y,
            z=heat.values, coloraxis=self.coloraxes[heat.label],
            text=heat.hover if heat.hover is not None else _cells(panel, heat),
            customdata=_n_of_cells(heat), hoverongaps=False,
            hovertemplate="%{text}: %{z:.4g}%{customdata}<extra></extra>", **at,
        )  # fmt: skip

    @_mark.register
    def _sound(self, sound: Spectrogram, panel: Panel, at: dict[str, int]) -> None:
        x, y = sound.edges(panel.x, panel.y)
        self.drawn.add_heatmap(
            x=x, y=y, z=sound.image.values, colorscale=AMOUNT, showscale=False,
            hovertemplate="%{x:.2f} s<extra></extra>", **at,
        )  # fmt: skip

    @_mark.register
    def _rule(self, rule: Rule, panel: Panel, at: dict[str, int]) -> None:
        x, y = self.figure.ends(panel, rule)
        self.drawn.add_scatter(
            x=x, y=y, mode="lines", line=self._stroke(rule.look),
            hovertemplate=f"{_text(rule.name)} {rule.at:.3g}<extra></extra>" if rule.name else None,
            hoverinfo=None if rule.name else "skip", **self._named(rule.name), **at,
        )  # fmt: skip

    @_mark.register
    def _edges(self, edges: Edges, panel: Panel, at: dict[str, int]) -> None:
        for width, mine in edges.by_width:
            x, y = edges.lines(mine)
            self.drawn.add_scatter(
                x=x, y=y, mode="lines", opacity=OPACITY, hoverinfo="skip", connectgaps=False,
                line=self._stroke(edges.look) | {"width": width}, **self._named(edges.name), **at,
            )  # fmt: skip
        # Of a line plotly would take the ends for what is pointed at, where nodes stand.
        x, y, said = edges.middles
        self.drawn.add_scatter(
            x=x, y=y, text=[_text(each) for each in said], mode="markers", legendgroup=edges.name,
            marker={"opacity": 0, "size": 4, "color": edges.look.colour(self.dark)},
            hovertemplate="%{text}<extra></extra>", showlegend=False, **at,
        )  # fmt: skip

    @_mark.register
    def _nodes(self, nodes: Nodes, panel: Panel, at: dict[str, int]) -> None:
        self.drawn.add_scatter(
            x=nodes.x, y=nodes.y, mode="markers+text", marker=self._marker(nodes.look, 9),
            text=[_text(each) for each in nodes.labels], textposition="middle right",
            textfont={"size": 11}, customdata=[[each] for each in nodes.ids],
            hovertext=[_text(each) for each in nodes.hover],
            hovertemplate="%{hovertext}<extra></extra>", **self._named(nodes.name), **at,
        )  # fmt: skip

    def _values(
        self, spread: Spread | None, places: Any, colour: str, group: str, at: Any,
        *, across: bool = False,
    ) -> None:  # fmt: skip
        if spread is None or not any(spread.values):
            return
        ours, values = spread.each(places)
        x, y = (values, ours) if across else (ours, values)
        self.drawn.add_scatter(
            x=x, y=y, mode="markers", marker={"size": 5, "color": colour, "opacity": 0.45},
            hovertemplate=f"one of n: %{{{'x' if across else 'y'}:.3g}}<extra></extra>",
            legendgroup=group, showlegend=False, **at,
        )  # fmt: skip

    # -- looks ------------------------------------------------------------------------------------

    def _named(self, name: str) -> dict[str, Any]:
        first = bool(name) and name not in self.named
        self.named.add(name)
        return {"name": _text(name), "legendgroup": name, "showlegend": first}

    def _stroke(self, look: Look) -> dict[str, Any]:
        width = 1.2 if look.light else 2
        return {"color": look.colour(self.dark), "width": width, "dash": look.dash}

    def _marker(self, look: Look, size: float) -> dict[str, Any]:
        hollow = "-open" if look.hollow or look.marker == "line-ns" else ""
        return {
            "symbol": (look.marker or "circle") + hollow,
            "size": (size if look.marker else 3) * look.size,
            "color": look.colour(self.dark),
        }

    # -- beside the panels ------------------------------------------------------------------------

    def _colour_bars(self) -> None:
        for label, of in self.figure.colours().items():
            domains = [self._domain(panel) for panel in of.panels]
            bottom, top = min(d[0] for d in domains), max(d[1] for d in domains)
            said = {"text": _text(self.figure.colour_label(label)), "side": "right"}
            bar = {"title": said | {"font": {"size": 12}}, "thickness": 14}
            bar |= {"y": (bottom + top) / 2, "len": top - bottom}
            scale = {"colorscale": SIGNED if of.signed else AMOUNT, "cmin": of.low, "cmax": of.high}
            self.drawn.update_layout({self.coloraxes[label]: {**scale, "colorbar": bar}})

    def _domain(self, panel: Panel) -> tuple[float, float]:
        plot: Any = self.drawn.get_subplot(panel.row + 1, panel.column + 1)
        return tuple(plot.yaxis.domain)

    def _around(self, tall: float) -> None:
        lines = self.figure.lines()
        line = _PIXELS * _LINE
        below = 62 + 15 * len(lines) + line * self.figure.further_lines(self.figure.grid[0] - 1)[1]
        above = 40 + 20 * _rows(self.figure.legend()) + line * self.figure.further_lines(0)[0]
        height = round(_PIXELS * tall) + above + below
        self.drawn.update_layout(
            template="plotly_dark" if self.dark else "plotly_white",
            paper_bgcolor=(DARK_GROUNDS if self.dark else LIGHT_GROUNDS)[0],
            plot_bgcolor=(DARK_GROUNDS if self.dark else LIGHT_GROUNDS)[0],
            barmode="overlay",
            modebar={"orientation": "v"},
            height=height,
            margin={"l": 60, "r": 40, "t": above, "b": below},
            legend={
                "orientation": "h",
                "x": 0,
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "tracegroupgap": 0,
            },
            title={
                "text": "<br>".join(map(_text, lines)),
                "font": {"size": 11},
                "x": 0.01,
                "xanchor": "left",
                "y": (15 * len(lines) + 4) / height,
                "yanchor": "top",
                "yref": "container",
            },
        )


def _rows(names: Iterable[str]) -> int:
    """Of the legend: plotly fills each from the left."""
    rows, used = 1, 0
    for name in names:
        wide = 7 * len(name) + 45
        if used and used + wide > _NAMED:
            rows, used = rows + 1, 0
        used += wide
    return rows


def _shared(figure: Figure, which: int) -> bool:
    """Whether all panels of a column (0) or of a row (1) have one axis."""
    if which == 0:
        seen = {(p.column, p.x) for p in figure.panels}
        return len(seen) == len({column for column, _ in seen})
    seen = {(p.row, p.y) for p in figure.panels}
    return len(seen) == len({row for row, _ in seen})


def _hover(panel: Panel, series: Line | Points | Bars, i: int) -> str:
    """What is said of a point: where it is, its number, how sure it is and of how many."""
    place, number, sure = panel.x.name(series.x[i]), series.y[i], series.spread
    if panel.y.categories and isinstance(series, Points):
        place, number, sure = panel.y.name(series.y[i]), series.x[i], series.x_spread
    said = f"{_text(series.hover[i] if series.hover else place)}: {number:.4g}"
    if sure is not None and sure.known[i]:
        said += f" [{sure.low[i]:.4g}, {sure.high[i]:.4g}]"
    return said + (f", n {series.n[i]}" if series.counts - {1} else "")


def _cells(panel: Panel, heat: Heat) -> list[list[str]]:
    x, y = heat.edges(panel.x, panel.y)
    columns, rows = (
        [axis.name(own[i] if len(own) < len(edges) else (edges[i] + edges[i + 1]) / 2)
         for i in range(len(edges) - 1)]
        for axis, own, edges in ((panel.x, heat.x, x), (panel.y, heat.y, y))
    )  # fmt: skip
    return [[_text(f"{row}, {column}") for column in columns] for row in rows]


def _n_of_cells(heat: Heat) -> Any:
    """What is said of how many each cell is the mean of."""
    said = bool(heat.counts - {1})
    return [[f", n {n:.0f}" if said else "" for n in row] for row in heat.n]


def _alone(line: Line, colour: str) -> dict[str, Any]:
    """Bars of the points that have no band."""
    sides = _sides(line.spread, line.y, colour)
    for side in ("array", "arrayminus") if sides else ():
        bars = [of if i in line.alone else np.nan for i, of in enumerate(sides[side])]
        sides[side] = line.along(bars)
    return sides


def _sides(spread: Spread | None, middle: Any, colour: str) -> dict[str, Any]:
    """Plotly's bars from `low` to `high`; none where there is no interval."""
    if spread is None:
        return {}
    below, above = spread.sides(middle)
    return {
        "type": "data", "symmetric": False, "array": above, "arrayminus": below,
        "thickness": 1, "width": 2, "color": colour,
    }  # fmt: skip


def _text(text: str) -> str:
    """As it is, on as many lines: plotly would take marks of HTML for such."""
    return escape(text, quote=False).replace("\n", "<br>")

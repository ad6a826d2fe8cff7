"""How sure a line or mark is: its interval, or where clips are too few for one, each clip's value.

Every figure draws it by these functions, from the columns that `palscope._statistics` makes: `low`
and `high`, which are missing where there is no interval, and `values`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from palscope.plots import _style as style

_VALUE_SIZE = 5
_VALUE_OPACITY = 0.45


def band(
    figure: Any,
    rows: Any,
    x: str,
    colour: str,
    alpha: float = 0.2,
    name: str = "",
    **at: Any,
) -> None:
    """A line's interval as a band (plotly), broken where there is none; else the clips' values.

    Args:
        figure: to draw into.
        rows: in order of `x`.
        x: the column along the axis.
        colour: of the line.
        alpha: of the band.
        name: begins the columns' names (`NAME_low`), where they have one.
        **at: of the traces: row, column, group of the legend.
    """
    for run in _runs(rows, name):
        low, high = (run[_column(name, end)] for end in ("low", "high"))
        figure.add_scatter(
            x=np.concatenate([run[x], run[x][::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=style.translucent(colour, alpha),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            **at,
        )
    points(figure, rows, rows[x], colour, name=name, **at)


def points(
    figure: Any,
    rows: Any,
    places: Any,
    colour: str,
    *,
    name: str = "",
    across: bool = False,
    **at: Any,
) -> None:
    """Each clip's value at its row's place (plotly), where there is no interval.

    Args:
        figure: to draw into.
        rows: with `values`.
        places: where each row stands on the axis.
        colour: of the marks.
        name: begins the column's name.
        across: the values lie along x, the places along y.
        **at: of the trace.
    """
    ours, values = each_value(rows, places, name)
    if not values:
        return
    along = {"x": values, "y": ours} if across else {"x": ours, "y": values}
    figure.add_scatter(
        **along,
        mode="markers",
        marker={"size": _VALUE_SIZE, "color": colour, "opacity": _VALUE_OPACITY},
        hovertemplate=f"one clip: %{{{'x' if across else 'y'}:.3g}}<extra></extra>",
        showlegend=False,
        **at,
    )


def error_bars(rows: Any, middle: str, name: str = "") -> dict[str, Any]:
    """Plotly's bars from `low` to `high`, in their trace's colour; none where there is none."""
    low, high = (rows[_column(name, end)] for end in ("low", "high"))
    return {
        "type": "data",
        "symmetric": False,
        "array": high - rows[middle],
        "arrayminus": rows[middle] - low,
        "thickness": 1,
        "width": 2,
    }


def band_paper(
    axes: Any, rows: Any, x: str, colour: str, alpha: float = 0.2, name: str = ""
) -> None:
    """As `band`, for print."""
    places = rows[x].astype(float)
    low, high = (rows[_column(name, end)].astype(float) for end in ("low", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=alpha, linewidth=0)
    points_paper(axes, rows, rows[x], colour, name=name)


def points_paper(
    axes: Any,
    rows: Any,
    places: Any,
    colour: str,
    *,
    name: str = "",
    across: bool = False,
) -> None:
    """As `points`, for print."""
    ours, values = each_value(rows, places, name)
    if values:
        x, y = (values, ours) if across else (ours, values)
        look = {"markersize": 3.5, "alpha": _VALUE_OPACITY, "markeredgewidth": 0, "zorder": 1.5}
        axes.plot(x, y, "o", color=colour, **look)


def error_bars_paper(rows: Any, middle: str, name: str = "") -> list[Any]:
    """matplotlib's lengths below and above `middle`; NaN, of which it draws none, without them."""
    low, high = (rows[_column(name, end)] for end in ("low", "high"))
    return [(rows[middle] - low).clip(lower=0), (high - rows[middle]).clip(lower=0)]


def _column(name: str, end: str) -> str:
    return f"{name}_{end}" if name else end


def _runs(rows: Any, name: str) -> list[Any]:
    """The neighbouring rows that have an interval: a band must not bridge those that have none."""
    known = rows[_column(name, "low")].notna() & rows[_column(name, "high")].notna()
    number = (known != known.shift()).cumsum()
    return [run for _, run in rows[known].groupby(number[known], sort=False)]


def each_value(rows: Any, places: Any, name: str = "") -> tuple[list[Any], list[float]]:
    """The place of each row's values, and the values."""
    column = _column(name, "values")
    if column not in rows:
        return [], []
    ours: list[Any] = []
    values: list[float] = []
    for place, each in zip(places, rows[column], strict=True):
        ours += [place] * len(each.numbers)
        values += each.numbers
    return ours, values

"""A figure: panels of marks, and what must be said beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure as Paper

from palscope._files import make_folder, writing
from palscope.plots._cells import Heat, Spectrogram
from palscope.plots._grammar import Axis, Bars, Drawn, Line, Points, Rule, Steps
from palscope.plots._looks import Look
from palscope.plots._network import Edges, Nodes

Mark = Drawn | Heat | Spectrogram | Nodes | Edges
NAMED = (Line, Points, Bars, Steps, Rule, Nodes, Edges)
"""Marks that the legend names."""
Limits = tuple[float, float]
BLANK = "Grey cells: not seen there, or not measured."
_WRAP = 84
"""Letters of a line of the caption, at most."""
_SAID_PER_INCH = 16
"""Letters of the caption that stand in an inch."""
PER_INCH = 14
"""Letters of titles and labels that stand in an inch."""
BESIDE = 0.9
"""Inches beside the panels, for the ticks and the title of an axis."""


@dataclass(frozen=True)
class Caption:
    """What every figure says of where its numbers are from.

    Attributes:
        model: which model, and its route where that is not its own.
        asked: which question, or which pairs.
        n: how many clips or pairs.
        of: what they are.
    """

    model: str
    asked: str
    n: int
    of: str = "clips"

    def __post_init__(self) -> None:
        for name in ("model", "asked"):
            if not getattr(self, name).strip():
                raise ValueError(f"a figure's caption needs its {name}; it is empty.")
        if self.n < 1:
            raise ValueError(f"a figure is of 1 clip or pair at least, not of {self.n}.")

    def __str__(self) -> str:
        of = self.of.removesuffix("s") if self.n == 1 else self.of
        return f"{self.model} · {self.asked} · {self.n} {of}"


@dataclass(frozen=True, eq=False)
class Panel:
    """Marks on two axes, drawn in order.

    Attributes:
        marks: what is drawn.
        x: along.
        y: upwards.
        title: above.
        row: in the figure, from the top.
        column: in the figure, from the left.
        height: of its row, beside those of other rows.
        empty: what stands in it where nothing is drawn.
    """

    marks: Sequence[Mark]
    x: Axis
    y: Axis
    title: str = ""
    row: int = 0
    column: int = 0
    height: float = 1.0
    empty: str = "nothing to draw"

    @property
    def counts(self) -> set[int]:
        """Of how many the numbers are means."""
        return {n for mark in self.marks for n in mark.counts}

    @property
    def heats(self) -> list[Heat]:
        return [mark for mark in self.marks if isinstance(mark, Heat)]

    @property
    def band_opacity(self) -> float:
        """Of each interval's band: however many lie on each other, lines show through."""
        bands = sum(bool(mark.bands) for mark in self.marks if isinstance(mark, Line))
        return round(min(0.2, 0.4 / max(1, bands)), 3)

    def beside(self, bars: Bars) -> tuple[np.ndarray, float]:
        """The middles and the width of bars: several sets stand beside each other in 0.8 of 1."""
        sets = [mark for mark in self.marks if isinstance(mark, Bars)]
        width = 0.8 / len(sets)
        at = next(at for at, each in enumerate(sets) if each is bars)
        return self.x.places(bars.x) + (at - (len(sets) - 1) / 2) * width, width


@dataclass(frozen=True)
class Colours:
    """The colours of all heats of one label.

    Attributes:
        low: the number at the lower end.
        high: the number at the upper end.
        signed: the scale lies about 0.
        panels: where they are drawn.
    """

    low: float
    high: float
    signed: bool
    panels: tuple[Panel, ...]


@dataclass(frozen=True, eq=False)
class Figure:
    """One description of a figure, drawn for the screen or for print.

    Attributes:
        panels: in a grid of rows and columns; those that have the same axis share its ends.
        caption: model, question or pairs, and n.
        data: what is drawn, as a table.
        note: a further sentence under the figure.
        scales: ends of axes and, by label, of colours that are set from outside.
    """

    panels: Sequence[Panel]
    caption: Caption
    data: pd.DataFrame
    note: str = ""
    scales: Mapping[Axis | str, Limits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        places = [(panel.row, panel.column) for panel in self.panels]
        if len(set(places)) < len(places):
            raise ValueError(f"two panels stand in one place: rows and columns {places}.")
        self.legend()

    def screen(self, *, dark: bool = False) -> go.Figure:
        """For the screen, on a light or a dark ground."""
        from palscope.plots._screen import draw

        return draw(self, dark)

    def print(self) -> Paper:
        """For paper."""
        from palscope.plots._print import draw

        return draw(self)

    def save(self, path: Path) -> list[Path]:
        """Write `path` with the endings `.html`, `.png`, `.svg`, and what is drawn as `.csv`.

        The HTML pages of one folder share `plotly.min.js`, which is written beside them: they open
        without a network. Returns the files. Raises `PalscopeError` where they cannot be written.
        """
        files = {end: path.with_name(f"{path.name}.{end}") for end in ("html", "png", "svg", "csv")}
        make_folder(path.parent)
        page: Any = self.screen()
        paper = self.print()
        with writing(path):
            page.write_html(files["html"], include_plotlyjs="directory", div_id="figure")
            paper.savefig(files["png"], dpi=150)
            paper.savefig(files["svg"], metadata={"Date": None})
            self.data.to_csv(files["csv"], index=False)
        return [*files.values()]

    def _repr_mimebundle_(self, *given: Any, **named: Any) -> Any:
        page: Any = self.screen()
        return page._repr_mimebundle_(*given, **named)

    # -- what both draw -----------------------------------------------------------------------

    @property
    def grid(self) -> tuple[int, int]:
        """How many rows and columns of panels."""
        return (
            max((panel.row for panel in self.panels), default=0) + 1,
            max((panel.column for panel in self.panels), default=0) + 1,
        )

    def scale(self, axis: Axis) -> Limits:
        """The ends of an axis: what all panels that have it draw, with a little room."""
        if axis in self.scales:
            return self.scales[axis]
        if axis.categories:
            return -0.5, len(axis.categories) - 0.5
        numbers, tight = [np.zeros(0)], False
        for panel in self.panels:
            for which, own in enumerate((panel.x, panel.y)):
                if own == axis:
                    numbers += [mark.reach(panel.x, panel.y)[which] for mark in panel.marks]
                    tight |= any(mark.tight[which] for mark in panel.marks)
        return _ends(np.concatenate(numbers), axis.limits, 0.0 if tight else 0.04)

    def shown(self, panel: Panel) -> tuple[bool, bool]:
        """Whether x and y are named at a panel: not where its neighbour has the same."""
        at = {(each.row, each.column): each for each in self.panels}
        below = at.get((panel.row + 1, panel.column))
        beside = at.get((panel.row, panel.column - 1))
        return below is None or below.x != panel.x, beside is None or beside.y != panel.y

    def ends(self, panel: Panel, rule: Rule) -> tuple[list[float], list[float]]:
        """The x and the y of a line to compare with."""
        along = panel.x if rule.along == "x" else panel.y
        ends, level = list(rule.ends or self.scale(along)), [rule.at, rule.at]
        return (ends, level) if rule.along == "x" else (level, ends)

    def colours(self) -> dict[str, Colours]:
        """The colours of each label of heats."""
        found: dict[str, Colours] = {}
        for label in dict.fromkeys(heat.label for panel in self.panels for heat in panel.heats):
            panels = [p for p in self.panels if any(heat.label == label for heat in p.heats)]
            heats = [heat for panel in panels for heat in panel.heats if heat.label == label]
            values = np.concatenate([heat.values.reshape(-1) for heat in heats])
            least, most = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
            if heats[0].signed:
                most = max(most, -least)
                least = -most
            low, high = self.scales.get(label, (float(least), float(most) or 1.0))
            found[label] = Colours(low, high, heats[0].signed, tuple(panels))
        return found

    def legend(self) -> dict[str, tuple[type[Mark], Look]]:
        """What is named: its kind and look. Raises `ValueError` where one name has two looks."""
        named: dict[str, tuple[type[Mark], Look]] = {}
        for panel in self.panels:
            for mark in panel.marks:
                if isinstance(mark, NAMED) and mark.name:
                    _, look = named.setdefault(mark.name, (type(mark), mark.look))
                    if look != mark.look:
                        raise ValueError(f"series {mark.name!r} has two looks in one figure.")
        return named

    def title(self, panel: Panel) -> str:
        """A panel's title: with its n where panels differ in it, with its sum where it has one.

        Its lines are no longer than the panel is wide, as those of `x_label`.
        """
        parts = [panel.title] if panel.title else []
        differ = {frozenset(each.counts) for each in self.panels if each.counts}
        if len(differ) > 1 and panel.counts:
            parts.append(_counted(panel.counts))
        said = ", ".join(parts) + "".join(_sum(heat) for heat in panel.heats)
        return _in_lines(said, self.widths()[panel.column])

    def lines(self) -> list[str]:
        """What stands under the figure."""
        said = str(self.caption)
        counts = {n for panel in self.panels for n in panel.counts}
        if counts not in ({1}, {self.caption.n}, set()):
            said += f" ({_counted(counts)} at a point)"
        blank = any(np.isnan(heat.values).any() for p in self.panels for heat in p.heats)
        texts = [said, self.note, BLANK if blank else ""]
        letters = min(_WRAP, round(_SAID_PER_INCH * (sum(self.widths()) + BESIDE)))
        return [line for text in texts for line in textwrap.wrap(text, letters)]

    def x_label(self, panel: Panel) -> str:
        """The label of a panel's x axis, in lines that are no longer than the panel is wide."""
        return _in_lines(panel.x.label, self.widths()[panel.column])

    def further_lines(self, row: int) -> tuple[int, int]:
        """Beyond the first: of titles over a row of panels, and of ticks and labels under it."""
        panels = [panel for panel in self.panels if panel.row == row]
        title, label = (
            max((said(panel).count("\n") for panel in panels), default=0)
            for said in (self.title, self.x_label)
        )
        ticks = [name.count("\n") for panel in panels for _, name in panel.x.ticks]
        return title, label + max(ticks, default=0)

    def y_label(self, panel: Panel) -> str:
        """The label of a panel's y axis, in lines that are no longer than the panel is tall."""
        return _in_lines(panel.y.label, self.heights()[panel.row])

    def colour_label(self, label: str) -> str:
        """The label of colours, in lines that are no longer than their panels are tall."""
        rows = {panel.row for panel in self.colours()[label].panels}
        return _in_lines(label, sum(self.heights()[row] for row in rows))

    def widths(self) -> list[float]:
        """The width of each column of panels, in inches for print."""
        alone = self.grid[1] == 1
        return [
            max(_width(panel, alone) for panel in self.panels if panel.column == column)
            for column in range(self.grid[1])
        ]

    def heights(self) -> list[float]:
        """The height of each row of panels, in inches for print."""
        alone = self.grid[0] == 1
        return [
            max(_height(panel, alone) for panel in self.panels if panel.row == row)
            for row in range(self.grid[0])
        ]


def shared_scale(figures: Sequence[Figure]) -> list[Figure]:
    """The figures with one scale for each axis and each kind of colours that several of them have.

    For figures that are looked at side by side.
    """
    scales: dict[Axis | str, Limits] = {}
    for figure in figures:
        axes = {axis: figure.scale(axis) for panel in figure.panels for axis in (panel.x, panel.y)}
        colours = {label: (of.low, of.high) for label, of in figure.colours().items()}
        for key, (low, high) in {**axes, **colours}.items():
            before = scales.get(key, (low, high))
            scales[key] = min(low, before[0]), max(high, before[1])
    return [replace(figure, scales=scales) for figure in figures]


def named_ticks(axis: Axis, scale: tuple[float, float]) -> tuple[list[float], list[str]] | None:
    """Where an axis is marked and with what, where that is not left to the renderer."""
    if axis.categories:
        every = -(-len(axis.categories) // 24)
        places = [float(each) for each in range(0, len(axis.categories), every)]
        return places, list(axis.categories[::every])
    if axis.ticks:
        return [place for place, _ in axis.ticks], [label for _, label in axis.ticks]
    if axis.integer:
        whole = _integer_ticks(*scale)
        return [float(each) for each in whole], [str(each) for each in whole]
    return None


def _integer_ticks(low: float, high: float, most: int = 10) -> list[int]:
    """Whole numbers at equal distances between two ends, ten at most."""
    first, last = int(np.ceil(low)), int(np.floor(high))
    count = max(1, last - first)
    steps = (s * 10**power for power in range(12) for s in (1, 2, 5))
    step = next(step for step in steps if count / step <= most)
    return list(range(-(-first // step) * step, last + 1, step))


def _ends(values: np.ndarray, limits: tuple[float | None, float | None], room: float) -> Limits:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    least, most = limits
    low, high = (low if least is None else least), (high if most is None else most)
    if high <= low:
        low, high = (low, low + 1) if least is not None else (high - 0.5, high + 0.5)
    room *= high - low
    return (low - room if least is None else low), (high + room if most is None else high)


def _in_lines(text: str, inches: float) -> str:
    width = round(PER_INCH * inches)
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, width))


def _counted(counts: set[int]) -> str:
    least, most = min(counts), max(counts)
    return f"n {least}" if least == most else f"n {least} to {most}"


def _sum(heat: Heat) -> str:
    if heat.adds_to is None:
        return ""
    return f": {np.nansum(heat.values):.2f} of {heat.adds_to:.2f} in all"


def _width(panel: Panel, alone: bool) -> float:
    if any(isinstance(mark, Nodes) for mark in panel.marks):
        return 7.0
    if panel.heats:
        cells = panel.heats[0].values.shape[1]
        named = max([0, *map(len, panel.x.categories)])
        wide = 0.25 * cells if named < 8 else 0.6 * cells
        return 5.6 if panel.x.unit == "s" else float(np.clip(wide, 2.4, 7.0))
    if panel.x.categories:
        return float(np.clip(0.95 * len(panel.x.categories), 2.0, 7.0))
    return 5.6 if alone else 2.5


def _height(panel: Panel, alone: bool) -> float:
    if panel.heats and (panel.y.integer or panel.y.categories):
        return panel.height * float(np.clip(0.17 * len(panel.heats[0].values), 1.4, 7.0))
    if any(isinstance(mark, Heat | Spectrogram) for mark in panel.marks):
        return 1.6 * panel.height
    if panel.y.categories:
        return float(np.clip(0.32 * len(panel.y.categories), 1.0, 8.0))
    return panel.height * (2.6 if alone else 1.9)

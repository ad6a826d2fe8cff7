"""What a drawn figure shows, read back from plotly and from matplotlib."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from palscope.plots import Figure

Shown = dict[str, Any]


def agree(figure: Figure) -> list[Shown]:
    """Assert that screen, light and dark, and print show the same; returns it, a panel each."""
    page, paper = figure.screen(), drawn(figure)
    is_readable(paper)
    shown = in_print(figure, paper)
    for other in (on_screen(figure, page), on_screen(figure, figure.screen(dark=True))):
        for ours, theirs in zip(shown, other, strict=True):
            for what in ("x", "y", "ticks", "limits"):
                assert ours[what] == theirs[what], what
            for what in ("curves", "bars", "heats", "bands", "intervals"):
                pairs = [_ordered(each[what]) for each in (ours, theirs)]
                assert len(pairs[0]) == len(pairs[1]), what
                for one, two in zip(*pairs, strict=True):
                    np.testing.assert_allclose(one, two, atol=1e-6, err_msg=what)
    for panel, wide, high in zip(figure.panels, *_sizes(figure, page, paper), strict=True):
        wanted = figure.heights()[panel.row]
        assert high[0] == pytest.approx(wanted), "on screen a panel is as high as described"
        assert 0.85 * wanted < high[1] < wanted + 1.2, "in print nearly so"
        assert wide > 0.6 * figure.widths()[panel.column]
    names = [text.get_text() for each in paper.legends for text in each.get_texts()]
    assert names == [trace.name for trace in page.data if trace.showlegend]
    titles = {note.text.replace("<br>", "\n") for note in page.layout.annotations}
    assert {each["title"] for each in shown} - {""} <= {_plain(title) for title in titles}
    said = _plain(page.layout.title.text.replace("<br>", "\n"))
    assert said == paper.get_supxlabel().replace(r"\$", "$") == "\n".join(figure.lines())
    return shown


def is_readable(paper: Any) -> None:
    """Assert that every text on paper stands on it whole, and no two on each other."""
    outlines = [(text.get_text(), _outline(text)) for text in _texts(paper)]
    for said, outline in outlines:
        low, high = outline.get_extents().get_points()
        assert (low > -0.5).all() and (high < paper.bbox.max + 0.5).all(), f"cut off: {said!r}"
    for (one, here), (other, there) in combinations(outlines, 2):
        assert not here.intersects_path(there), f"{one!r} stands on {other!r}"


def _texts(paper: Any) -> list[Any]:
    """Those that are drawn: matplotlib keeps marks beyond an axis's ends, too."""
    beyond: set[Any] = set()
    for axis in (axis for axes in paper.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        room = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low - room <= tick.get_loc() <= high + room:
                beyond |= {tick.label1, tick.label2}
    texts = [text for text in paper.findobj(Text) if text.get_visible() and text not in beyond]
    return [text for text in texts if text.get_text().strip()]


def _outline(text: Any) -> Path:
    """Its box in pixels, turned as it is."""
    angle = text.get_rotation()
    slants = bool(angle % 90)
    text.set_rotation(0 if slants else angle)
    (left, low), (right, high) = text.get_window_extent().padded(-0.5).get_points()
    text.set_rotation(angle)
    box = Path([(left, low), (right, low), (right, high), (left, high), (left, low)], closed=True)
    if not slants:
        return box
    at = text.get_transform().transform(text.get_position())
    return box.transformed(Affine2D().rotate_deg_around(*at, angle))


def named(figure: Figure, panel: int = 0) -> dict[str, Any]:
    """The marks of a panel that have a name."""
    marks: list[Any] = list(figure.panels[panel].marks)
    return {mark.name: mark for mark in marks if getattr(mark, "name", "")}


def colour_ends(figure: Figure) -> dict[str, tuple[float, float]]:
    """The ends of each scale of colours."""
    return {label: (of.low, of.high) for label, of in figure.colours().items()}


def drawn(figure: Figure) -> Any:
    """The figure on paper, all its parts in place."""
    paper: Any = figure.print()
    paper.draw_without_rendering()
    return paper


def _sizes(figure: Figure, page: Any, paper: Any) -> tuple[list[float], list[tuple[float, float]]]:
    """Inches of each panel: its width in print, its height on screen and in print."""
    margin, axes = page.layout.margin, axes_of(paper)
    tall = (page.layout.height - margin.t - margin.b) / 100
    on_page = [page.get_subplot(p.row + 1, p.column + 1).yaxis.domain for p in figure.panels]
    in_print = [axes[p.row, p.column].get_position() for p in figure.panels]
    wide, high = paper.get_size_inches()
    heights = [
        ((top - low) * tall, box.height * high)
        for (low, top), box in zip(on_page, in_print, strict=True)
    ]
    return [box.width * wide for box in in_print], heights


def axes_of(paper: Any) -> dict[tuple[int, int], Any]:
    """The panels in print by row and column."""
    return {
        (spec.rowspan.start, spec.colspan.start): axes
        for axes in paper.axes
        if axes.get_label() != "<colorbar>" and (spec := axes.get_subplotspec()) is not None
    }


def on_screen(figure: Figure, page: Any) -> list[Shown]:
    """Of each panel what plotly draws."""
    shown: list[Shown] = []
    for panel in figure.panels:
        plot = page.get_subplot(panel.row + 1, panel.column + 1)
        of = plot.yaxis.anchor  # the name of this panel's x axis
        traces = [trace for trace in page.data if (trace.xaxis or "x") == of]
        lines = [trace for trace in traces if trace.type == "scatter" and trace.x is not None]
        lines = [trace for trace in lines if len(trace.x) and trace.marker.opacity != 0]
        ticks = [axis.ticktext if axis.showticklabels else None for axis in plot]
        shown.append(
            {
                "x": _plain(plot.xaxis.title.text or ""),
                "y": _plain(plot.yaxis.title.text or ""),
                "ticks": tuple(each and tuple(map(_plain, each)) for each in ticks),
                "limits": (*plot.xaxis.range, *plot.yaxis.range),
                "curves": [np.array([t.x, t.y], float) for t in lines if not t.fill],
                "bands": [_band(t.x, t.y) for t in lines if t.fill],
                "bars": [np.array([t.x, t.y], float) for t in traces if t.type == "bar"],
                "heats": [np.asarray(t.z, float) for t in traces if t.type == "heatmap"],
                "intervals": [
                    interval for t in traces if t.type != "heatmap" for interval in _errors(t)
                ],
            }
        )
    return shown


def in_print(figure: Figure, paper: Any) -> list[Shown]:
    """Of each panel what matplotlib draws."""
    places = axes_of(paper)
    shown: list[Shown] = []
    for panel in figure.panels:
        axes = places[panel.row, panel.column]
        kinds: dict[str, list[Any]] = {}
        for each in axes.collections:
            kinds.setdefault(type(each).__name__, []).append(each)
        bars = [each for each in axes.containers if type(each).__name__ == "BarContainer"]
        errors = [each for each in axes.containers if type(each).__name__ == "ErrorbarContainer"]
        caps = {id(cap) for each in errors for cap in each.lines[1]}
        lines = [np.array(line.get_data(), float) for line in axes.lines if id(line) not in caps]
        ends = [part for each in kinds.get("LineCollection", []) for part in each.get_segments()]
        named = [(axes.xaxis, panel.x), (axes.yaxis, panel.y)]
        shown.append(
            {
                "title": axes.get_title().replace(r"\$", "$"),
                "x": axes.get_xlabel(),
                "y": axes.get_ylabel(),
                "ticks": tuple(_ticks(axis) if _has_ticks(of) else None for axis, of in named),
                "limits": (*axes.get_xlim(), *axes.get_ylim()),
                "curves": [line for line in lines if line.size],
                "bands": [
                    _band(*each.get_paths()[0].vertices.T)
                    for each in kinds.get("FillBetweenPolyCollection", [])
                ],
                "bars": [
                    np.array([(b.get_x() + b.get_width() / 2, b.get_height()) for b in each]).T
                    for each in bars
                ],
                "heats": [
                    np.ma.filled(np.ma.asarray(each.get_array(), float), np.nan)
                    for each in kinds.get("QuadMesh", [])
                ],
                "intervals": [_interval(*part) for part in ends if len(part) == 2 and _known(part)],
            }
        )  # fmt: skip
    return shown


def _errors(trace: Any) -> list[Any]:
    """Where each interval of a trace stands, and from where to where it reaches."""
    found: list[Any] = []
    for bars, middle, places in (
        (trace.error_y, trace.y, trace.x),
        (trace.error_x, trace.x, trace.y),
    ):
        if bars.array is None:
            continue
        rows = np.array([places, middle, bars.arrayminus, bars.array], float).T
        found += [np.array([p, m - a, m + b]) for p, m, a, b in rows if not np.isnan(b)]
    return found


def _band(x: Any, y: Any) -> Any:
    """The ends of a band, and where it lies."""
    return np.array([min(y), max(y), min(x), max(x)], float)


def _interval(one: Any, other: Any) -> Any:
    flat = one[1] == other[1]
    return np.array([one[1], one[0], other[0]] if flat else [one[0], one[1], other[1]])


def _known(part: Any) -> bool:
    return not np.isnan(part).any()


def _has_ticks(axis: Any) -> bool:
    return bool(axis.categories or axis.ticks or axis.integer)


def _ticks(axis: Any) -> tuple[str, ...] | None:
    texts = tuple(label.get_text() for label in axis.get_ticklabels())
    return texts if any(texts) else None


def _plain(text: str) -> str:
    for mark, letter in (("<br>", "\n"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(mark, letter)
    return text


def _ordered(arrays: list[Any]) -> list[Any]:
    return sorted(arrays, key=lambda array: str(np.nan_to_num(array, nan=-9).round(5).tolist()))

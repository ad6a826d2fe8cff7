"""A figure is described once: screen and print show the same, and what misleads is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.io
import pytest
from matplotlib.image import imread

from palscope._palette import PALETTE
from palscope._routing.display import colours
from palscope._statistics import Values
from palscope.audio import Waveform
from palscope.plots import (
    Axis,
    Bars,
    Caption,
    Figure,
    Heat,
    Line,
    Look,
    Panel,
    Points,
    Rule,
    Span,
    Spectrogram,
    Spread,
    Steps,
    shared_scale,
)
from palscope.plots._cells import frequency_axis
from palscope.plots._looks import DARK_GROUNDS, LIGHT_GROUNDS, looks, ramp
from palscope.plots._network import Edges, Nodes
from palscope.plots._spectrogram import mel_image
from tests.colours import luminance
from tests.plots.reading import agree, colour_ends

CAPTION = Caption("pal", "what is heard? $5 <b>", 20)
LAYER = Axis("layer", integer=True)
SHARE = Axis("share", limits=(0, None))
LONG = "what the last token reads of the summary of the sound, integrated gradients"
NONE = pd.DataFrame({"a": [1.0]})
KINDS = [
    "lines",
    "bars",
    "points",
    "across",
    "heat",
    "sound",
    "wordy",
    "narrow",
    "crowded",
    "network",
]


def described(*panels: Panel, **further: Any) -> Figure:
    return Figure(panels, CAPTION, NONE, **further)


def line(**changed: Any) -> Line:
    rows = pd.DataFrame(
        {
            "layer": range(6),
            "mean": [0.1, 0.2, np.nan, 0.4, 0.5, 0.6],
            "n": [20, 20, 0, 20, 20, 18],
            "low": [0.0, 0.1, np.nan, 0.3, np.nan, np.nan],
            "high": [0.2, 0.3, np.nan, 0.5, np.nan, np.nan],
            "values": [Values()] * 4 + [Values((0.4, 0.6)), Values()],
        }
    )
    return Line.of(rows, "layer", **({"name": "frames", "look": Look("frames")} | changed))


SURE = Spread(np.array([0.1, np.nan]), np.array([0.4, np.nan]), ((), (0.2, 0.3)))


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    """One of each kind."""
    tone = Waveform(np.sin(np.arange(8000) / 3).astype(np.float32), 16_000, "tone")
    image = mel_image(tone)
    time = Axis("time", "s", limits=(0, image.seconds))
    kinds = Axis("kind", categories=("a", "b <b>"))
    rows = pd.DataFrame({"head": [0, 1, 1], "layer": [0, 0, 2], "mean": [0.1, 0.2, 0.3]})
    heat = Heat.of(rows, "head", "layer", "mean", "share of attention")
    signed = Heat([[1.0, -2.0]], ["a", "b <b>"], [0], "nats", signed=True, adds_to=3.0)
    steps = Steps([0, 0.1, 0.3], [0.1, 0.2, 0.5], [1.0, 2, 3], "summary", Look("summary"))
    bars = [Bars(["a", "b <b>"], [0.3, 0.2], 20, name, look, SURE)
            for name, look in looks("xy").items()]  # fmt: skip
    points = Points(["a", "b <b>"], [0.3, 0.2], 20, "p", spread=SURE)
    names = [f"{i} to {i + 9}, of silence" for i in range(40)]
    crowd = Axis("stretch", categories=tuple(names))
    across = Points([0.3, 0.2], [0, 1], 1, x_spread=SURE)
    heard = Nodes([0, 1], [0, 2], ("a", "b <b>"), ("", "$5"), "head", Look("ink", "triangle-up"))
    joins = Edges(np.zeros((2, 2)), np.array([[1.0, 2.0], [0.0, 2.0]]), np.array([0, 0.3]),
                  np.array([2.0, 0.5]), ("a to b", "up"), "helps", Look("green", ""))  # fmt: skip
    return {
        "network": described(Panel([joins, heard], time, LAYER)),
        "lines": described(
            Panel([Span(1, 2), line(), Rule(0.3, "chance"), Rule(2, along="y")], LAYER, SHARE, "a"),
            Panel([line(look=Look("frames"))], LAYER, SHARE, "b\nc", 0, 1),
            Panel([], LAYER, Axis("other"), row=1, empty="nothing is seen here"),
            note="A note.",
        ),
        "bars": described(Panel([*bars, Rule(0.1, ends=(-0.4, 0.4))], kinds, SHARE)),
        "points": described(Panel([points], kinds, SHARE), note=f"{LONG}; {LONG}"),
        "across": described(Panel([across], SHARE, kinds)),
        "heat": described(
            Panel([heat], Axis("head", integer=True), LAYER),
            Panel([signed], kinds, Axis("x", integer=True), "sum", 0, 1),
        ),
        "sound": described(
            Panel([steps], time, SHARE),
            Panel([Spectrogram(image)], time, frequency_axis(image), row=1),
        ),
        "wordy": described(
            *(Panel([line(name=f"{LONG}, {i}")], replace(LAYER, title=LONG), SHARE, f"{i}: {LONG}",
                    i // 3, i % 3) for i in range(6)),
        ),
        "narrow": described(
            Panel([Points(list("abc"), [1, 2, 3], 1, LONG)], Axis("", categories=(*"abc",)), SHARE),
        ),
        "crowded": described(
            Panel([Heat(np.eye(40), names, names, LONG)], crowd, crowd),
            Panel([Bars(names[:2], [1, 2], 1)], Axis(LONG, categories=tuple(names[:2])), SHARE,
                  "a", 0, 1),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_screen_and_print_show_the_same(figures: dict[str, Figure], kind: str) -> None:
    assert agree(figures[kind])


def test_a_line_breaks_at_blanks_and_where_n_changes(figures: dict[str, Figure]) -> None:
    shown = agree(figures["lines"])[0]
    curve = next(c for c in shown["curves"] if c.shape[1] > 5)
    np.testing.assert_allclose(curve[0], [0, 1, np.nan, 3, 4, np.nan, 5])
    assert [band[2:].tolist() for band in shown["bands"]] == [[0, 1]]
    np.testing.assert_allclose(shown["intervals"], [[3, 0.3, 0.5]])  # a band would have no width
    assert any(np.array_equal(c, [[4, 4], [0.4, 0.6]]) for c in shown["curves"])  # clips' values


def test_an_edge_is_as_wide_as_described_and_bends_upwards(figures: dict[str, Figure]) -> None:
    agree(figures["network"])
    wide, thin = (trace for trace in figures["network"].screen().data if trace.mode == "lines")
    assert (wide.line.width, thin.line.width) == (2.0, 0.5)
    lines = figures["network"].print().axes[0].lines
    assert [line.get_linewidth() for line in lines[:2]] == pytest.approx([1.4, 0.35])
    # By hand, of cubic curves whose controls are half of the height above and below the ends.
    np.testing.assert_allclose([wide.x[12], wide.y[12]], [0.5, 1.0])
    np.testing.assert_allclose([thin.x[12], thin.y[12]], [0.75 * 0.3, 1.0])
    assert wide.y[1] / wide.x[1] > 10, "it leaves upwards"
    told, nodes = (t for t in figures["network"].screen().data if t.mode != "lines")
    assert dict(zip(told.text, told.y, strict=True)).keys() == {"a to b", "up"}
    assert set(told.x).isdisjoint(nodes.x), "at a node the node is told"
    assert nodes.hovertext == ("a", "b &lt;b&gt;") and nodes.text == ("", "$5")


def test_what_cannot_be_seen_is_blank(figures: dict[str, Figure]) -> None:
    heat = agree(figures["heat"])[0]["heats"][0]
    np.testing.assert_allclose(heat, [[0.1, 0.2], [np.nan] * 2, [np.nan, 0.3]])
    assert "Grey cells" in " ".join(figures["heat"].lines())
    assert "Grey cells" not in " ".join(figures["sound"].lines())


def test_only_what_adds_is_summed(figures: dict[str, Figure]) -> None:
    first, second = figures["heat"].panels
    assert figures["heat"].title(first) == ""
    assert figures["heat"].title(second) == "sum: -1.00 of 3.00 in all"


def test_every_figure_says_model_question_and_n(figures: dict[str, Figure]) -> None:
    assert figures["bars"].lines() == ["pal · what is heard? $5 <b> · 20 clips"]
    said = figures["lines"].lines()
    assert said == ["pal · what is heard? $5 <b> · 20 clips (n 18 to 20 at a point)", "A note."]
    assert str(Caption("pal", "a pair", 1, "pairs")) == "pal · a pair · 1 pair"
    for model, asked, n in (("", "q", 1), ("pal", " ", 1), ("pal", "q", 0)):
        with pytest.raises(ValueError, match="figure"):
            Caption(model, asked, n)


def test_panels_of_different_n_say_it() -> None:
    few = Line([0, 1], [0.1, 0.2], 7)
    figure = described(Panel([line()], LAYER, SHARE, "a"), Panel([few], LAYER, SHARE, "b", 0, 1))
    assert [figure.title(panel) for panel in figure.panels] == ["a, n 18 to 20", "b, n 7"]
    assert figure.screen().data[-1].text[0] == "layer 0: 0.1, n 7"  # where one points at it


def test_means_of_none_and_lines_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="mean of none"):
        Bars([0], [1.0], 0)
    with pytest.raises(TypeError, match="'n'"):
        Line([0], [1.0])
    with pytest.raises(ValueError, match="not in order"):
        Line([1, 0], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="no order"):
        Line(["a", "b"], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="infinite"):
        Points([0], [np.inf], 1)
    with pytest.raises(ValueError, match="2 places, 1 numbers"):
        Points([0, 1], [1.0], 1)
    with pytest.raises(ValueError, match="2 intervals, 1 numbers"):
        Points([0], [1.0], 1, spread=SURE)
    with pytest.raises(ValueError, match="3 places for 1 columns"):
        Heat(np.zeros((1, 1)), [0, 1, 2], [0], "share")
    with pytest.raises(ValueError, match="equally wide"):
        Heat(np.zeros((1, 3)), [0, 1, 3], [0], "share").edges(SHARE, SHARE)
    with pytest.raises(ValueError, match="'c' is no category of the axis 'kind'; it has a, b"):
        Axis("kind", categories=("a", "b")).places(["a", "c"])
    with pytest.raises(ValueError, match="nodes 'n': x, y, hover and labels are of"):
        Nodes([0], [0], ("a", "b"), ("",), "n")
    with pytest.raises(ValueError, match="edges 'e': start, end, bend, width and hover are of"):
        Edges(np.zeros((1, 2)), np.ones((1, 2)), np.zeros(1), np.ones(1), (), "e")
    with pytest.raises(ValueError, match="two looks"):
        described(Panel([line(), line(look=Look("summary"))], LAYER, SHARE))


def test_maps_side_by_side_share_a_scale() -> None:
    def map_of(value: float, label: str = "share") -> Panel:
        return Panel([Heat([[value, 0.1]], [0, 1], [0], label)], LAYER, LAYER)

    both = described(map_of(0.5), Panel(map_of(2.0).marks, LAYER, LAYER, column=1))
    assert colour_ends(both) == {"share": (0.0, 2.0)}
    assert {t.coloraxis for t in both.screen().data} == {"coloraxis"}
    assert both.screen().layout.coloraxis.cmax == 2
    apart = [described(map_of(2.0)), described(map_of(0.5)), described(map_of(9.0, "nats"))]
    assert [colour_ends(f) for f in shared_scale(apart)] == [
        {"share": (0.0, 2.0)}, {"share": (0.0, 2.0)}, {"nats": (0.0, 9.0)},
    ]  # fmt: skip
    lines = [described(Panel([Line([0, 1], [0, y], 1)], LAYER, SHARE)) for y in (8, 1)]
    for figure in shared_scale(lines):
        assert agree(figure)[0]["limits"][2:] == (0, pytest.approx(8.32))


@pytest.mark.parametrize("dark", [False, True])
def test_every_series_stands_out_from_every_ground(dark: bool) -> None:
    assert luminance("#FFFFFF") == pytest.approx(1) and luminance("#000000") == 0
    for look in [*map(Look, PALETTE), *ramp(7)]:
        for ground in DARK_GROUNDS if dark else LIGHT_GROUNDS:
            one, other = sorted([luminance(look.colour(dark)), luminance(ground)])
            assert (other + 0.05) / (one + 0.05) >= 3, (look, ground)


def test_what_has_one_colour_for_both_grounds_stands_out_from_both() -> None:
    for colour in colours(["a", "b", "c", "d", "e"]).values():  # of layouts and of the player
        for ground in (*DARK_GROUNDS, *LIGHT_GROUNDS):
            one, other = sorted([luminance(colour), luminance(ground)])
            assert (other + 0.05) / (one + 0.05) >= 3, (colour, ground)


def test_streams_keep_their_looks_and_no_two_look_alike() -> None:
    streams = looks(["text", "frames", "summary", "low", "high"])
    assert [streams[name].slot for name in ("frames", "summary")] == ["frames", "summary"]
    many = looks(range(40))
    for found in (streams, many):
        seen = {(look.colour(), look.marker) for look in found.values()}
        assert len(seen) == len(found)
    assert len({look.colour() for look in streams.values()}) == 5


def test_whole_numbers_are_marked_as_such() -> None:
    figure = described(Panel([Line([0, 137], [0, 1], 1)], LAYER, SHARE))
    assert agree(figure)[0]["ticks"][0] == ("0", "20", "40", "60", "80", "100", "120", "140")


def test_a_figure_is_saved_in_each_format_with_its_numbers(
    figures: dict[str, Figure], tmp_path: Path
) -> None:
    files = figures["lines"].save(tmp_path / "new" / "mass.v1")
    assert [file.name for file in files] == [
        f"mass.v1.{end}" for end in ("html", "png", "svg", "csv")
    ]
    picture = imread(files[1])
    assert picture.shape[1] > 600 and picture.std() > 0.01
    assert files[2].read_text(encoding="utf-8").count("<svg") == 1
    page = files[0].read_text(encoding="utf-8")
    assert "what is heard" in page and "https://" not in page.split("plotly.min.js")[0]
    assert (files[0].parent / "plotly.min.js").is_file()  # the page opens without a network
    pd.testing.assert_frame_equal(pd.read_csv(files[3]), NONE)


def test_a_notebook_shows_it(figures: dict[str, Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")
    bundle = figures["bars"]._repr_mimebundle_()
    assert bundle["application/vnd.plotly.v1+json"]["layout"]["title"]["text"].startswith("pal")

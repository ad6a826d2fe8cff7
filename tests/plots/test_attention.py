"""Both kinds of figures draw the table's numbers, on axes with names and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.measures import by_pathway, mean_band, over_time
from palscope.measures._seconds import mass_per_second
from palscope.plots import _attention as screen_figures
from palscope.plots import _paper as paper_figures

# pandas and the plotting libraries are typed in part only.
attention: Any = screen_figures
paper: Any = paper_figures


def named(figure: Any) -> dict[str, Any]:
    """A plotly figure's traces that stand in the legend."""
    return {trace.name: trace for trace in figure.data if trace.name}


def drawn(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


SCALES = np.linspace(0.8, 1.0, 20)


def bands(table: Any, by: list[str], of: Any = by_pathway) -> Any:
    tables = [of(table).assign(mass=lambda t, f=f: t["mass"] * f) for f in (0.8, 1.0)]
    return mean_band(tables, by)


def test_mass_by_layer(table: Any) -> None:
    screen = attention.mass_by_layer(table)
    lines = named(screen)
    assert list(lines) == ["text", "frames", "summary"]
    np.testing.assert_allclose(lines["frames"].y, [0.4, np.nan, 0.7])
    np.testing.assert_allclose(np.nansum([line.y for line in lines.values()], 0), 1)
    assert screen.layout.xaxis.title.text == "layer"
    assert screen.layout.yaxis.title.text == "share of attention"
    assert len(screen.data) == 3  # one clip: no band
    axes = paper.mass_by_layer(table).axes[0]
    np.testing.assert_allclose(drawn(axes)["frames"].get_ydata(), [0.4, np.nan, 0.7])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer", "share of attention")


def test_mass_by_layer_draws_the_band_it_is_given(table: Any) -> None:
    clips = [by_pathway(table).assign(mass=lambda t, f=f: t["mass"] * f) for f in SCALES]
    band = mean_band(clips, ["layer", "pathway"])
    screen = attention.mass_by_layer(band)
    fills = [t for t in screen.data if t.legendgroup == "frames" and t.fill == "toself"]
    frames = band[band["pathway"] == "frames"]
    assert max(max(fill.y) for fill in fills) == pytest.approx(frames["high"].max())
    # layer 1 sees no frames: the band does not run through it
    assert [sorted(set(fill.x)) for fill in fills] == [[0], [2]]
    assert len(paper.mass_by_layer(band).axes[0].collections) == 3


def test_mass_by_layer_of_few_clips_shows_each(table: Any) -> None:
    band = bands(table, ["layer", "pathway"])
    screen = attention.mass_by_layer(band)
    assert not any(trace.fill for trace in screen.data)
    dots = next(t for t in screen.data if t.legendgroup == "frames" and t.mode == "markers")
    assert list(dots.x) == [0, 0, 2, 2]
    np.testing.assert_allclose(dots.y, [0.32, 0.4, 0.56, 0.7])
    axes = paper.mass_by_layer(band).axes[0]
    assert any(list(line.get_xdata()) == [0, 0, 2, 2] for line in axes.get_lines())


def test_layer_head_map(table: Any) -> None:
    expected = [[0.4, 0.4], [np.nan, np.nan], [0.4, 1]]  # layer 1 sees no frames
    screen = attention.layer_head_map(table, "frames")
    np.testing.assert_allclose(screen.data[0].z, expected)
    assert screen.layout.xaxis.title.text == "head" and screen.layout.yaxis.title.text == "layer"
    figure = paper.layer_head_map(table, "frames")
    np.testing.assert_allclose(figure.axes[0].get_images()[0].get_array().filled(np.nan), expected)
    band = bands(table, ["layer", "head", "pathway"])
    np.testing.assert_allclose(
        attention.layer_head_map(band, "frames").data[0].z, 0.9 * np.array(expected)
    )
    with pytest.raises(ValueError, match="text, frames, summary"):
        attention.layer_head_map(table, "frame")


def test_time_stands_above_the_spectrogram_on_one_axis(table: Any, waveform: Any) -> None:
    one = table[(table["layer"] == 2) & (table["head"] == 1)]
    screen = attention.time_over_spectrogram(one, waveform)
    lines = named(screen)
    assert set(lines) == {"frames", "summary"}
    assert lines["frames"].line.shape == "hv"
    np.testing.assert_allclose(lines["frames"].x, np.arange(11) / 10)
    np.testing.assert_allclose(lines["frames"].y, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(lines["summary"].x, [0, 0.3, 0.6, 0.9, 1])
    assert screen.layout.xaxis.matches == "x2"
    assert tuple(screen.layout.xaxis2.range) == (0, 1)
    assert screen.layout.xaxis2.title.text == "time (s)"
    assert screen.layout.yaxis2.title.text == "frequency (kHz)"
    top, bottom = paper.time_over_spectrogram(one, waveform).axes
    values, edges, _ = top.patches[0].get_data()
    np.testing.assert_allclose(values, np.eye(10)[4])
    np.testing.assert_allclose(edges, np.arange(11) / 10)
    assert bottom.get_xlim() == top.get_xlim() == (0, 1)
    assert bottom.get_xlabel() == "time (s)"


def test_time_without_audio_says_so(table: Any, waveform: Any) -> None:
    text = table[table["pathway"] == "text"]
    screen = attention.time_over_spectrogram(text, waveform)
    assert "no audio" in screen.layout.annotations[0].text
    assert "no audio" in paper.time_over_spectrogram(text, waveform).axes[0].texts[0].get_text()


def test_only_the_chosen_clip_is_drawn(table: Any, waveform: Any) -> None:
    other = table[table["pathway"] != "text"].assign(clip=1, mass=0.0)
    both = pd.concat([table, other])
    lines = named(attention.time_over_spectrogram(both, waveform, clip=1))
    assert max(lines["frames"].y) == 0
    assert max(named(attention.time_over_spectrogram(both, waveform))["frames"].y) > 0


def test_mass_over_time_of_many_clips(table: Any) -> None:
    edges = np.arange(11) / 10
    band = bands(
        table, ["pathway", "start_s", "end_s"], lambda t: mass_per_second(over_time(t), edges)
    )
    screen = attention.mass_over_time(band)
    frames = named(screen)["frames"]
    np.testing.assert_allclose(frames.x, np.arange(10) / 10 + 0.05)
    assert frames.y[4] == pytest.approx(0.9 * (3 * 0.04 + 1) / 6 / 0.1)
    axes = paper.mass_over_time(band).axes[0]
    np.testing.assert_allclose(drawn(axes)["frames"].get_ydata(), frames.y)


def test_pathways_keep_their_colours_and_unknown_ones_differ(table: Any) -> None:
    shares = by_pathway(table)
    colour = named(attention.mass_by_layer(shares))["summary"].line.color
    alone = shares[shares["pathway"] == "summary"]
    assert named(attention.mass_by_layer(alone))["summary"].line.color == colour
    shares["pathway"] = shares["pathway"].cat.rename_categories(
        {"frames": "low", "summary": "high"}
    )
    lines = named(attention.mass_by_layer(shares))
    assert len({line.line.color for line in lines.values()}) == 3


def test_difference_of_two_maps_is_in_points_where_both_see_the_pathway(table: Any) -> None:
    other = table[~((table["layer"] == 2) & (table["pathway"] == "frames"))]
    expected = [[0, 0], [np.nan, np.nan], [np.nan, np.nan]]
    screen = attention.layer_head_map(table, "frames", minus=other)
    np.testing.assert_allclose(screen.data[0].z, expected)
    assert screen.data[0].zmid == 0
    figure = paper.layer_head_map(table, "frames", minus=other)
    picture = figure.axes[0].get_images()[0]
    np.testing.assert_allclose(picture.get_array().filled(np.nan), expected)


def test_thumbnails_keep_the_mass_and_its_time(table: Any) -> None:
    screen = attention.head_thumbnails(table, "frames")
    drawn = screen.data[0].z.reshape(3, 2, -1)
    assert np.isnan(drawn[1]).all()  # this layer sees no frames
    assert np.isnan(drawn[..., -2:]).all()  # the gap between heads
    strips = drawn[..., :-2]
    np.testing.assert_allclose(strips[[0, 2]].sum(-1), [[0.4, 0.4], [0.4, 1]])
    np.testing.assert_allclose(strips[2, 1], np.eye(10)[4])
    at = np.argmax(np.nan_to_num(screen.data[0].z[2]))
    assert screen.data[0].x0 + at * screen.data[0].dx == pytest.approx(1 - 0.5 + 4.5 / 12)
    assert "0.40 to 0.50 s" in screen.data[0].customdata[2, at]
    picture = paper.head_thumbnails(table, "frames").axes[0].get_images()[0]
    np.testing.assert_allclose(picture.get_array().filled(np.nan), screen.data[0].z)


def test_thumbnails_of_a_stream_nobody_sees_are_blank(table: Any) -> None:
    text_only = table[table["pathway"] == "text"]
    assert np.isnan(attention.head_thumbnails(text_only, "frames").data[0].z).all()

"""Figures of attention draw the table's numbers, on axes with names and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.measures import by_pathway, mean_band, over_time
from palscope.measures._seconds import mass_per_second
from palscope.plots import (
    Caption,
    head_thumbnails,
    layer_head_map,
    mass_by_layer,
    mass_over_time,
    shared_scale,
    time_over_spectrogram,
)
from tests.plots.reading import agree, colour_ends, named

CAPTION = Caption("pal", "what is heard?", 2)


def bands(table: Any, by: list[str], of: Any = by_pathway, scales: Any = (0.8, 1.0)) -> Any:
    """A mean over clips that differ by a factor."""
    return mean_band([of(table).assign(mass=lambda t, f=f: t["mass"] * f) for f in scales], by)


def test_mass_by_layer(table: Any) -> None:
    figure = mass_by_layer(table, caption=CAPTION)
    lines = named(figure)
    assert list(lines) == ["text", "frames", "summary"]
    np.testing.assert_allclose(lines["frames"].y, [0.4, np.nan, 0.7])  # layer 1 sees no frames
    np.testing.assert_allclose(np.nansum([line.y for line in lines.values()], 0), 1)
    (shown,) = agree(figure)
    assert (shown["x"], shown["y"]) == ("layer", "share of attention")
    assert not shown["bands"]  # one clip
    alone = named(mass_by_layer(by_pathway(table).query("pathway == 'summary'"), caption=CAPTION))
    assert alone["summary"].look == lines["summary"].look


def test_mass_by_layer_does_not_join_over_layers_that_have_no_row(table: Any) -> None:
    without = table[(table["layer"] != 1) | (table["pathway"] == "text")]
    assert named(mass_by_layer(without, caption=CAPTION))["frames"].order == [0, None, 2]


def test_mass_by_layer_of_many_clips_has_a_band(table: Any) -> None:
    many = bands(table, ["layer", "pathway"], scales=np.linspace(0.8, 1, 20))
    figure = mass_by_layer(many, caption=CAPTION)
    frames = named(figure)["frames"]
    assert frames.alone == [0, 2] and not frames.bands  # it does not run through layer 1
    assert frames.spread.high[2] == many.query("pathway == 'frames'")["high"].max()
    assert len(agree(figure)[0]["bands"]) == 2  # text and summary


def test_mass_by_layer_of_few_clips_shows_each(table: Any) -> None:
    (shown,) = agree(mass_by_layer(bands(table, ["layer", "pathway"]), caption=CAPTION))
    dots = [[0, 0, 2, 2], [0.32, 0.4, 0.56, 0.7]]
    assert any(c.shape == (2, 4) and np.allclose(c, dots) for c in shown["curves"])


def test_layer_head_map(table: Any) -> None:
    expected = np.array([[0.4, 0.4], [np.nan, np.nan], [0.4, 1]])  # layer 1 sees no frames
    (shown,) = agree(layer_head_map(table, "frames", caption=CAPTION))
    np.testing.assert_allclose(shown["heats"][0], expected)
    assert (shown["x"], shown["y"], shown["title"]) == ("head", "layer", "to frames")
    maps = [layer_head_map(table, name, caption=CAPTION) for name in ("frames", "summary")]
    for each in shared_scale(maps):
        assert colour_ends(each) == {"share of attention": (0, 1)}
    figure = layer_head_map(bands(table, ["layer", "head", "pathway"]), "frames", caption=CAPTION)
    np.testing.assert_allclose(figure.panels[0].heats[0].values, 0.9 * expected)
    assert figure.panels[0].heats[0].counts == {2}
    with pytest.raises(ValueError, match="text, frames, summary"):
        layer_head_map(table, "frame", caption=CAPTION)


def test_difference_of_two_maps_is_in_points_where_both_see_the_pathway(table: Any) -> None:
    other = table[~((table["layer"] == 2) & (table["pathway"] == "frames"))]
    other = other.assign(mass=other["mass"] / 2)
    figure = layer_head_map(table, "frames", minus=other, caption=CAPTION)
    expected = [[20, 20], [np.nan, np.nan], [np.nan, np.nan]]
    np.testing.assert_allclose(agree(figure)[0]["heats"][0], expected)
    assert colour_ends(figure) == {"percentage points of attention": (-20, 20)}


def test_time_stands_above_the_spectrogram_on_one_axis(table: Any, waveform: Any) -> None:
    one = table[(table["layer"] == 2) & (table["head"] == 1)]
    figure = time_over_spectrogram(one, waveform, caption=CAPTION)
    steps = named(figure)
    assert set(steps) == {"frames", "summary"}
    np.testing.assert_allclose(steps["frames"].y, np.eye(10)[4])
    np.testing.assert_allclose(steps["summary"].end, [0.3, 0.6, 0.9, 1])
    above, below = agree(figure)
    assert above["limits"][:2] == below["limits"][:2] == (0, 1)
    assert (below["x"], below["y"]) == ("time (s)", "frequency (kHz)")
    assert below["ticks"][1] == ("0.5", "1", "2", "4")


def test_time_without_audio_says_so(table: Any, waveform: Any) -> None:
    text = table[table["pathway"] == "text"]
    figure: Any = time_over_spectrogram(text, waveform, caption=CAPTION)
    assert agree(figure)[0]["curves"] == []
    assert "no audio" in figure.print().axes[0].texts[0].get_text()
    assert any("no audio" in note.text for note in figure.screen().layout.annotations)


def test_only_the_chosen_clip_is_drawn(table: Any, waveform: Any) -> None:
    other = table[table["pathway"] != "text"].assign(clip=1, mass=0.0)
    both = pd.concat([table, other])
    for clip, most in ((0, 0.2), (1, 0)):
        figure = time_over_spectrogram(both, waveform, clip, caption=CAPTION)
        assert max(named(figure)["frames"].y) == pytest.approx((3 * 0.04 + 1) / 6 if most else 0)


def test_mass_over_time_of_many_clips_does_not_join_bins_of_fewer(table: Any) -> None:
    edges = np.arange(11) / 10
    long, short = (
        mass_per_second(over_time(table), edges).query(f"end_s < {end}") for end in (2, 0.75)
    )
    band = mean_band([long, short], ["pathway", "start_s", "end_s"], limits=(0, None))
    figure = mass_over_time(band, caption=CAPTION)
    frames = named(figure)["frames"]
    np.testing.assert_allclose(frames.x, edges[:-1] + 0.05)
    assert frames.y[4] == pytest.approx((3 * 0.04 + 1) / 6 / 0.1)
    assert [(each.start, each.stop) for each in frames.pieces] == [(0, 7), (7, 10)]
    assert "n 1 to 2" in figure.lines()[0]
    agree(figure)


def test_thumbnails_keep_the_mass_and_its_time(table: Any) -> None:
    figure = head_thumbnails(table, "frames", caption=CAPTION)
    heat: Any = figure.panels[0].heats[0]
    strips = heat.values.reshape(3, 2, -1)
    assert np.isnan(strips[1]).all()  # this layer sees no frames
    assert np.isnan(strips[..., -2:]).all()  # the gap between heads
    np.testing.assert_allclose(strips[[0, 2], :, :-2].sum(-1), [[0.4, 0.4], [0.4, 1]])
    np.testing.assert_allclose(strips[2, 1, :-2], np.eye(10)[4])
    at = np.argmax(np.nan_to_num(heat.values[2]))
    assert (heat.x[at] + heat.x[at + 1]) / 2 == pytest.approx(1 - 0.5 + 4.5 / 12)
    assert heat.hover[2, at] == "layer 2, 0.40 to 0.50 s"
    agree(figure)
    unseen = head_thumbnails(table[table["pathway"] == "text"], "frames", caption=CAPTION)
    assert np.isnan(unseen.panels[0].heats[0].values).all()

"""Figures of attributions draw the table's numbers, on axes with names and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import Values
from palscope.audio import Waveform
from palscope.plots import _attribution as drawing

figures: Any = drawing


@pytest.fixture
def waveform() -> Waveform:
    samples = np.random.default_rng(0).normal(size=9600).astype(np.float32) * 0.1
    return Waveform(samples, 16_000, "noise")


@pytest.fixture
def attributions() -> pd.DataFrame:
    """60 mel frames of 4 bins; 6 frames in layers 0 and 2, 2 summaries in layers 0 to 3."""
    rng = np.random.default_rng(1)
    mel = [
        {"site": "mel", "layer": None, "stream": "mel frames", "token": frame, "bin": number}
        | {"start_s": frame / 100, "end_s": (frame + 1) / 100, "hz": 500.0 * (number + 1)}
        for frame in range(60)
        for number in range(4)
    ]
    tokens = [
        {"site": "audio_state", "layer": layer, "stream": stream, "token": token}
        | {"start_s": token * step, "end_s": (token + 1) * step}
        for stream, step, layers in (("frames", 0.1, (0, 2)), ("summary", 0.3, range(4)))
        for layer in layers
        for token in range(round(0.6 / step))
    ]
    table = pd.DataFrame([*mel, *tokens])
    table["layer"] = table["layer"].astype("Int64")
    return table.assign(attribution=rng.normal(size=len(table)))


def test_attributions_stand_under_the_spectrogram(
    attributions: pd.DataFrame, waveform: Waveform
) -> None:
    screen = figures.heat_map(attributions, waveform)
    spectrogram, mel, frames, summary = screen.data
    assert spectrogram.z.shape == (80, 60)
    whole: Any = attributions
    values = whole[whole["site"] == "mel"]["attribution"].to_numpy().reshape(60, 4)
    np.testing.assert_allclose(mel.z, values.T)
    assert mel.x[0] == pytest.approx(-0.005) and mel.x[-1] == pytest.approx(0.595)
    # A layer that does not see the stream is left blank.
    own = whole[whole["stream"] == "frames"]["attribution"].to_numpy().reshape(2, 6)
    np.testing.assert_allclose(frames.z, [own[0], [np.nan] * 6, own[1]])
    np.testing.assert_allclose(frames.x, np.arange(7) / 10)
    assert summary.z.shape == (4, 2) and list(summary.x) == pytest.approx([0, 0.3, 0.6])
    for trace in (mel, frames, summary):
        assert trace.zmax == -trace.zmin == pytest.approx(np.nanmax(np.abs(trace.z)))
    titles = [note.text for note in screen.layout.annotations]
    # Each layer and token on its own: their effects overlap, and have no sum.
    assert titles[1:3] == ["attribution to the mel spectrogram", "attribution to frames by layer"]
    path = whole.assign(path=whole["site"].eq("mel").astype(int), difference=7.0)
    titles = [note.text for note in figures.heat_map(path, waveform).layout.annotations]
    assert titles[1] == f"attribution to the mel spectrogram: {np.nansum(mel.z):.2f} of 7.00 nats"
    assert titles[2] == f"attribution to frames by layer: {np.nansum(frames.z):.2f} of 7.00 nats"
    # A path a layer: no more one difference than of single cells.
    layers = path.assign(path=path["layer"].fillna(9))
    titles = [note.text for note in figures.heat_map(layers, waveform).layout.annotations]
    assert titles[2] == "attribution to frames by layer"
    paper = figures.heat_map_paper(attributions, waveform)
    axes = [each for each in paper.axes if each.get_title(loc="left")]
    labels = [each.get_ylabel() for each in axes]
    assert labels == ["frequency (kHz)", "frequency (kHz)", "layer", "layer"]
    assert axes[-1].get_xlabel() == "time (s)" == screen.layout.xaxis4.title.text
    drawn = axes[2].collections[0].get_array()
    np.testing.assert_allclose(np.ma.filled(drawn, np.nan), frames.z)
    assert [each.get_ylabel() for each in paper.axes][-1] == "attribution (nats)"


def test_ticks_of_the_mel_spectrogram_are_at_its_own_bins(
    attributions: pd.DataFrame, waveform: Waveform
) -> None:
    axis = figures.heat_map(attributions, waveform).layout.yaxis2
    # Bins at 500, 1000, 1500 and 2000 Hz.
    ticks = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert (ticks["0.5"], ticks["1"], ticks["2"]) == (0, 1, 3)


@pytest.fixture
def cells() -> pd.DataFrame:
    rows = [
        {"pair": pair, "method": method, "site": site, "stream": stream, "layer": layer}
        | {"place": "0.00 to 0.30 s", "attribution": x, "effect": 2 * x + shift}
        for shift, pair in enumerate("ab")
        for method in ("one way", "another")
        for site, stream, layer in (("audio_state", "frames", 3), ("encoder_output", None, None))
        for x in (-1.0, 0.5)
    ]
    return pd.DataFrame(rows)


def test_attributions_against_exact_patching(cells: pd.DataFrame) -> None:
    screen = figures.scatter(cells)
    points = [trace for trace in screen.data if trace.mode == "markers"]
    assert {trace.name for trace in points} == {"audio state, frames", "encoder output"}
    first = points[0]
    np.testing.assert_allclose(first.x, [-1, 0.5, -1, 0.5])
    np.testing.assert_allclose(first.y, [-2, 1, -1, 2])
    assert first.text[0] == "a, 0.00 to 0.30 s, layer 3"
    line = next(trace for trace in screen.data if trace.mode == "lines")
    np.testing.assert_allclose([line.x, line.y], [[-1, 0.5]] * 2)
    assert screen.layout.xaxis.title.text == "attribution (nats)"
    assert screen.layout.yaxis.title.text == "effect of exact patching (nats)"
    paper = figures.scatter_paper(cells)
    assert [axes.get_title() for axes in paper.axes] == ["one way", "another"]
    drawn = np.concatenate([dots.get_offsets() for dots in paper.axes[0].collections])
    assert len(drawn) == 8 and [-1.0, -2.0] in drawn.tolist()
    assert paper.axes[0].get_ylabel() == "effect of exact patching (nats)"


def test_correlation_by_layer() -> None:
    depth = pd.DataFrame(
        {
            "method": "one way",
            "stream": "frames",
            "layer": [3, 0],
            "spearman": [0.9, 0.2],
            "spearman_low": [0.8, np.nan],
            "spearman_high": [0.95, np.nan],
            "spearman_values": [Values(), Values((0.1, 0.3))],
            "size": [4.0, 0.1],
        }
    )
    band, pairs, line, size = figures.by_layer(depth).data
    # where pairs are too few for an interval, each one's
    assert list(pairs.x) == [0, 0] and list(pairs.y) == [0.1, 0.3]
    assert list(size.y) == [0.1, 4.0]
    assert list(line.x) == [0, 3] and list(line.y) == [0.2, 0.9]
    assert list(band.y) == [0.95, 0.8] and line.name == "frames, one way"
    axes, below = figures.by_layer_paper(depth).axes
    np.testing.assert_allclose(axes.get_lines()[1].get_ydata(), [0.2, 0.9])
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.1, 0.3])
    np.testing.assert_allclose(below.get_lines()[0].get_ydata(), [0.1, 4.0])
    assert below.get_xlabel() == "layer" and "rank" in axes.get_ylabel()
    assert below.get_ylabel() == "mean effect\n(nats)"


def test_deletion_and_insertion() -> None:
    rows = [
        {"order": order, "curve": curve, "share": share, "mean": -share * rate}
        | {"low": -share * rate - 1, "high": -share * rate + 1, "n": 5}
        for rate, order in enumerate(("gradients", "random"), start=1)
        for curve in ("deletion", "insertion")
        for share in (1.0, 0.0, 0.5)
    ]
    bands = pd.DataFrame(rows)
    screen = figures.curves(bands)
    lines = [trace for trace in screen.data if trace.mode == "lines+markers"]
    assert [trace.name for trace in lines if trace.showlegend] == ["gradients", "random"]
    assert list(lines[0].x) == [0, 0.5, 1] and list(lines[0].y) == [0, -0.5, -1]
    assert screen.layout.xaxis2.title.text == "share of the clip inserted"
    assert screen.layout.yaxis.title.text == "log-probability of the answer (nats)"
    paper = figures.curves_paper(bands)
    assert [axes.get_xlabel() for axes in paper.axes] == [
        "share of the clip deleted",
        "share of the clip inserted",
    ]
    np.testing.assert_allclose(paper.axes[1].get_lines()[1].get_ydata(), [0, -1, -2])
    assert len(paper.axes[0].collections) == 2

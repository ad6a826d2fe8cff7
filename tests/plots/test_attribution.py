"""Figures of attributions show the table's numbers, on axes with names and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import Values
from palscope.audio import Waveform
from palscope.plots import Caption, Figure, Spectrogram
from palscope.plots import _attribution as figures
from tests.plots.reading import agree, colour_ends

CAPTION = Caption("pal", "pair a", 1, "pairs")


@pytest.fixture(scope="module")
def waveform() -> Waveform:
    samples = np.random.default_rng(0).normal(size=9600).astype(np.float32) * 0.1
    return Waveform(samples, 16_000, "noise")


@pytest.fixture(scope="module")
def attributions() -> pd.DataFrame:
    """60 mel frames of 4 bins; 6 frames in layers 1 and 3, 2 summaries in layers 0 to 3."""
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
        for stream, step, layers in (("frames", 0.1, (1, 3)), ("summary", 0.3, range(4)))
        for layer in layers
        for token in range(round(0.6 / step))
    ]
    table = pd.DataFrame([*mel, *tokens])
    table["layer"] = table["layer"].astype("Int64")
    return table.assign(attribution=rng.normal(size=len(table)))


def titles(figure: Figure) -> list[str]:
    return [figure.title(panel) for panel in figure.panels[1:]]


def test_attributions_stand_under_the_spectrogram(attributions: Any, waveform: Waveform) -> None:
    figure = figures.heat_map(attributions, waveform, caption=CAPTION)
    sound, mel, frames, summary = figure.panels
    assert isinstance(sound.marks[0], Spectrogram)
    (bins,), (of_frames,), (of_summary,) = mel.heats, frames.heats, summary.heats
    values = attributions[attributions["site"] == "mel"]["attribution"].to_numpy()
    np.testing.assert_allclose(bins.values, values.reshape(60, 4).T)
    assert (bins.x[0], bins.x[-1]) == pytest.approx((-0.005, 0.595))
    # A layer that does not see the stream is left blank.
    own = attributions[attributions["stream"] == "frames"]["attribution"].to_numpy().reshape(2, 6)
    np.testing.assert_allclose(of_frames.values, [[np.nan] * 6, own[0], [np.nan] * 6, own[1]])
    assert list(of_frames.x) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert of_summary.values.shape == (4, 2) and list(of_summary.x) == pytest.approx([0, 0.3, 0.6])
    # Streams share a scale; a bin of the spectrogram is worth something else.
    both = np.concatenate([of_frames.values.ravel(), of_summary.values.ravel()])
    for heat, shown in ((bins, bins.values), (of_frames, both), (of_summary, both)):
        most = np.nanmax(np.abs(shown))
        assert colour_ends(figure)[heat.label] == pytest.approx((-most, most))
    assert [panel.y.label for panel in figure.panels] == ["frequency (kHz)"] * 2 + ["layer"] * 2
    assert summary.x.label == "time (s)" and figure.scale(summary.x) == (0, 0.6)
    agree(figure)


def test_only_cells_of_one_path_have_a_sum(attributions: Any, waveform: Waveform) -> None:
    names = ["the mel spectrogram", "frames by layer", "summary by layer"]
    plain = [f"attribution to {name} (nats)" for name in names]
    # Each layer and token on its own: their effects overlap.
    assert titles(figures.heat_map(attributions, waveform, caption=CAPTION)) == plain
    path = attributions.assign(path=attributions["site"].eq("mel").astype(int), difference=7.0)
    figure = figures.heat_map(path, waveform, caption=CAPTION)
    sums = [np.nansum(panel.heats[0].values) for panel in figure.panels[1:]]
    said = [f"{name}: {total:.2f} of 7.00 in all" for name, total in zip(plain, sums, strict=True)]
    assert titles(figure) == said
    untold = path.assign(difference=np.nan)
    assert titles(figures.heat_map(untold, waveform, caption=CAPTION)) == plain
    # A path a layer: no more one difference than of single cells.
    layers = path.assign(path=path["layer"].fillna(9))
    assert titles(figures.heat_map(layers, waveform, caption=CAPTION))[1:] == plain[1:]


def test_ticks_of_the_mel_spectrogram_are_at_its_own_bins(
    attributions: Any, waveform: Waveform
) -> None:
    axis = figures.heat_map(attributions, waveform, caption=CAPTION).panels[1].y
    ticks = {label: place for place, label in axis.ticks}
    assert ticks == {"0.5": 0, "1": 1, "2": 3}  # bins of 500, 1000, 1500 and 2000 Hz
    untold = attributions.assign(hz=np.nan)
    assert figures.heat_map(untold, waveform, caption=CAPTION).panels[1].y.label == "mel bin"


def test_attributions_against_exact_patching() -> None:
    rows = [
        {"pair": pair, "method": method, "site": site, "stream": stream, "layer": layer}
        | {"place": "0.00 to 0.30 s", "attribution": x, "effect": 2 * x + shift}
        for shift, pair in enumerate("ab")
        for method in ("one way", "another")
        for site, stream, layer in (("audio_state", "frames", 3), ("encoder_output", None, None))
        for x in (-1.0, 0.5)
    ]
    figure = figures.scatter(pd.DataFrame(rows), caption=CAPTION)
    assert [panel.x.label for panel in figure.panels] == ["one way (nats)", "another (nats)"]
    marks: Any = figure.panels[0].marks
    state, encoder, same = marks
    assert [state.name, encoder.name] == ["audio state, frames", "encoder output"]
    np.testing.assert_allclose([state.x, state.y], [[-1, 0.5, -1, 0.5], [-2, 1, -1, 2]])
    assert (
        state.hover[0] == "a, 0.00 to 0.30 s, layer 3" and encoder.hover[0] == "a, 0.00 to 0.30 s"
    )
    np.testing.assert_allclose([same.x, same.y], [[-1, 0.5]] * 2)
    assert figure.panels[0].y.label == "effect of exact patching (nats)"
    apart = pd.DataFrame(rows).assign(effect=9.0)
    assert len(figures.scatter(apart, caption=CAPTION).panels[0].marks) == 2
    agree(figure)


def test_correlation_by_layer() -> None:
    depth = pd.DataFrame(
        {
            "method": ["one way"] * 3 + ["another"],
            "stream": "frames",
            "layer": [3, 0, 9, 6],
            "pairs": 2,
            "spearman": [0.9, 0.2, 0.5, 0.4],
            "spearman_low": [0.8, np.nan, 0.4, 0.3],
            "spearman_high": [0.95, np.nan, 0.6, 0.5],
            "spearman_values": [Values(), Values((0.1, 0.3)), Values(), Values()],
            "size": [4.0, 0.1, 2.0, 3.0],
        }
    )
    figure = figures.by_layer(depth, caption=CAPTION)
    above, below = figure.panels
    lines = {line.name: line for line in above.marks}
    line = lines["frames, one way"]
    assert line.x == [0, 3, 6, 9] and line.order == [0, 1, None, 3]
    np.testing.assert_allclose(line.y, [0.2, 0.9, np.nan, 0.5])
    assert line.spread.values[0] == (0.1, 0.3) and line.alone == [1, 3]
    assert line.look.slot == "frames" and line.look.dash != lines["frames, another"].look.dash
    (size,) = below.marks
    assert list(size.y) == [0.1, 4.0, 3.0, 2.0] and below.y.label == "mean effect (nats)"
    assert above.x == below.x and "rank" in above.y.label and above.y.limits == (-1.05, 1.05)
    assert "n 2" in figure.lines()[0]
    agree(figure)


def test_deletion_and_insertion() -> None:
    rows = [
        {"order": order, "curve": curve, "share": share, "mean": -share * rate}
        | {"low": -share * rate - 1, "high": -share * rate + 1, "n": 5}
        for rate, order in enumerate(("gradients", "random"), start=1)
        for curve in ("deletion", "insertion")
        for share in (1.0, 0.0, 0.5)
    ]
    figure = figures.curves(pd.DataFrame(rows), caption=CAPTION)
    gradients, random = figure.panels[0].marks
    assert gradients.x == [0, 0.5, 1] and list(gradients.y) == [0, -0.5, -1]
    assert gradients.bands == [slice(0, 3)] and list(random.y) == [0, -1, -2]
    assert (random.look.slot, random.look.dash) == ("grey", "dash")
    assert [panel.x.label for panel in figure.panels] == [
        "share of the clip deleted",
        "share of the clip inserted",
    ]
    assert figure.panels[0].y.label == "log-probability of the answer (nats)"
    agree(figure)

"""Figures of activation patching draw the effects, with intervals, baselines and controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.plots import _patching as figures

# The plotting libraries are typed in part only.
patching: Any = figures

PLACES = ("first digit", "silence")
NOTE = "denoising, logit_diff"


def effects(**columns: list[Any]) -> pd.DataFrame:
    """A row for each combination and run, effects counted upwards by 0.1."""
    grid = pd.MultiIndex.from_product(list(columns.values()), names=list(columns)).to_frame(False)
    grid["effect"] = 0.1 * np.arange(len(grid))
    other = grid.assign(run="other", effect=-0.05)
    made = pd.concat([grid.assign(run="patch"), other], ignore_index=True)
    controls = pd.DataFrame({"run": ["self", "full"], "effect": [0.0, 1.0]})
    made = pd.concat([controls, made], ignore_index=True)
    return made.assign(low=made["effect"] - 0.02, high=made["effect"] + 0.04, n=9)


@pytest.fixture
def by_site() -> pd.DataFrame:
    return effects(site=["audio_state", "waveform"], place=list(PLACES))


@pytest.fixture
def by_layer() -> pd.DataFrame:
    table = effects(layer=[0.0, 3.0], place=list(PLACES))
    # Nothing stands at the silence in the upper window.
    table = table[(table["layer"] != 3) | (table["place"] != "silence")]
    return table.assign(last_layer=table["layer"] + 2)


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.name}


def test_sites_stand_side_by_side_with_intervals_and_baseline(by_site: Any) -> None:
    figure = patching.effects_by_site(by_site, NOTE)
    found = traces(figure)
    assert list(found) == [
        "waveform (the sound itself)",
        "audio state, all layers",
        "waveform (the sound itself), random clip",
        "audio state, all layers, random clip",
    ]
    state = found["audio state, all layers"]
    np.testing.assert_allclose(state.y, [0, 0.1])
    np.testing.assert_allclose(np.array(state.error_y.array, dtype=float), 0.04)
    np.testing.assert_allclose(np.array(state.error_y.arrayminus, dtype=float), 0.02)
    assert np.round(state.x).tolist() == [0, 1]
    np.testing.assert_allclose(found["audio state, all layers, random clip"].y, -0.05)
    assert figure.layout.xaxis.ticktext == PLACES
    assert figure.layout.yaxis.title.text == "share of the difference restored"
    assert figure.layout.annotations[0].text == NOTE
    axes = patching.effects_by_site_paper(by_site, NOTE).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(PLACES)
    drawn = {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}
    np.testing.assert_allclose(np.array(drawn["audio state, all layers"], dtype=float), [0, 0.1])
    assert axes.get_ylabel() == "share of the difference restored"


def test_maps_leave_blank_where_nothing_stands(by_layer: Any) -> None:
    expected = [[0, 0.1], [0.2, np.nan]]
    figure = patching.effect_map(by_layer, "place", NOTE)
    np.testing.assert_allclose(np.array(figure.data[0].z, dtype=float), expected)
    assert list(figure.data[0].x) == list(PLACES) and list(figure.data[0].y) == ["0–2", "3–5"]
    assert figure.data[0].zmin == -figure.data[0].zmax == -0.2
    assert figure.layout.yaxis.title.text == "layers, patched together"
    axes = patching.effect_map_paper(by_layer, "place", NOTE).axes[0]
    image = axes.get_images()[0].get_array()
    np.testing.assert_allclose(np.ma.filled(image, np.nan), expected)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0–2", "3–5"]


def test_heads_are_a_map_of_layers_and_heads() -> None:
    table = effects(layer=[0.0, 1.0, 2.0], head=[0.0, 1.0])
    figure = patching.effect_map(table, "head")
    assert np.array(figure.data[0].z).shape == (3, 2)
    assert list(figure.data[0].x) == ["0", "1"] and figure.layout.yaxis.title.text == "layer"
    assert figure.layout.xaxis.title.text == "head"
    patching.effect_map_paper(table, "head")


def test_lines_have_bands_and_a_dotted_baseline(by_layer: Any) -> None:
    figure = patching.effect_lines(by_layer, "place", NOTE)
    found = traces(figure)
    np.testing.assert_allclose(found["first digit"].y, [0, 0.2])
    np.testing.assert_allclose(found["first digit"].x, [0, 3])
    assert found["first digit, random clip"].line.dash == "dot"
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == 2  # of the patches, not of the baseline
    assert max(bands[0].y) == pytest.approx(0.24) and min(bands[0].y) == pytest.approx(-0.02)
    axes = patching.effect_lines_paper(by_layer, "place", NOTE).axes[0]
    drawn = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(drawn["first digit"].get_ydata(), [0, 0.2])
    assert "random clip" in drawn and len(axes.collections) == 2
    assert axes.get_xlabel() == "layer, first of 3 patched together"


def test_from_a_layer_up_is_said_on_the_axis(by_layer: Any) -> None:
    up = by_layer.assign(last_layer=5.0)
    assert (
        patching.effect_lines(up, "place").layout.xaxis.title.text == "patched from this layer up"
    )
    assert list(patching.effect_map(up, "place").data[0].y) == ["0", "3"]


def test_streams_have_their_own_colours() -> None:
    table = effects(layer=[0.0, 1.0], stream=["summary", "frames"])
    found = traces(patching.effect_lines(table, "stream"))
    assert found["frames"].line.color == "#0072B2" and found["summary"].line.color == "#D55E00"


def test_the_note_states_controls_and_pairs_left_out(by_site: Any) -> None:
    controls = pd.DataFrame(
        {"control": ["self", "full"], "expected": [0.0, 1.0], "worst": [2e-6, 0.0]}
    )
    note = patching.note(by_site, controls, 12, False, "noising", "kl")
    for said in (
        "noising, kl",
        "9 of 12 pairs",
        "3 not answered",
        "self-patch 0",
        "2e-06",
        "full",
        "-0.05",
    ):
        assert said in note
    assert "all pairs" in patching.note(by_site, controls, 9, True, "noising", "kl")

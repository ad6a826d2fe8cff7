"""Figures of activation patching show the effects, with intervals, baselines and controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._statistics import Values
from palscope.plots import Caption
from palscope.plots import _patching as figures
from tests.plots.reading import agree, colour_ends

CAPTION = Caption("pal", "pairs: first_digit", 9, "pairs")
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
    """Nothing stands at the silence in the middle window; the baseline is of one pair there."""
    table = effects(layer=[0.0, 3.0, 6.0], place=list(PLACES))
    table = table[(table["layer"] != 3) | (table["place"] != "silence")]
    return table.assign(last_layer=table["layer"] + 2)


def test_sites_stand_side_by_side_with_intervals_and_baseline(by_site: Any) -> None:
    figure = figures.effects_by_site(by_site, caption=CAPTION, note=NOTE)
    (panel,) = figure.panels
    waveform, state, _, other, *rules = panel.marks
    assert [waveform.name, state.name] == ["waveform (the sound itself)", "audio state, all layers"]
    np.testing.assert_allclose(state.y, [0, 0.1])
    np.testing.assert_allclose([state.spread.low, state.spread.high], [[-0.02, 0.08], [0.04, 0.14]])
    np.testing.assert_allclose(other.y, -0.05)
    assert other.look.hollow and other.look.slot == state.look.slot
    assert other.hover == ("first digit, random clip", "silence, random clip")
    assert np.round(state.x).tolist() == [0, 1] and panel.x.categories == PLACES
    assert len({x for each in panel.marks[:4] for x in each.x}) == 8  # none hides another
    assert [rule.at for rule in rules] == [0, 1]
    assert panel.y.title == "share of the difference restored"
    assert figure.lines()[1:] == [f"{NOTE}; hollow: random clip"]
    assert figure.data is by_site
    agree(figure)


def test_maps_leave_blank_where_nothing_stands(by_layer: Any) -> None:
    figure = figures.effect_map(by_layer, "place", caption=CAPTION, note=NOTE)
    (panel,) = figure.panels
    expected = [[0, 0.1], [0.2, np.nan], [0.4, 0.5]]
    (shown,) = agree(figure)
    np.testing.assert_allclose(shown["heats"][0], expected)
    assert panel.x.categories == PLACES and panel.y.categories == ("0–2", "3–5", "6–8")
    assert panel.y.title == "layers, patched together"
    assert colour_ends(figure) == {"share of the difference restored": (-0.5, 0.5)}
    assert panel.counts == {9}


def test_what_is_next_to_nothing_looks_so(by_layer: Any) -> None:
    nothing = by_layer.assign(effect=1e-6)
    figure = figures.effect_map(nothing, "place", caption=CAPTION)
    assert colour_ends(figure) == {figures.EFFECT: (-0.05, 0.05)}


def test_heads_are_a_map_of_layers_and_heads() -> None:
    table = effects(layer=[0.0, 1.0, 2.0], head=[0.0, 1.0])
    (panel,) = figures.effect_map(table, "head", caption=CAPTION).panels
    assert panel.x.categories == ("0", "1") and panel.y.categories == ("0", "1", "2")
    assert (panel.x.title, panel.y.title) == ("head", "layer")


def test_lines_have_bands_and_a_dotted_baseline(by_layer: Any) -> None:
    figure = figures.effect_lines(by_layer, "place", caption=CAPTION, note=NOTE)
    marks: Any = figure.panels[0].marks
    digit, silence, other, *_ = marks
    np.testing.assert_allclose(digit.y, [0, 0.2, 0.4])
    assert digit.x == [0, 3, 6] and digit.bands == [slice(0, 3)]
    assert silence.order == [0, None, 2]  # not through the layer in which there is none
    assert other.look.dash == "dot" and other.look.slot == digit.look.slot and not other.bands
    assert other.hover[1] == "first digit, layer 3, random clip"
    assert figure.panels[0].x.title == "layer, first of 3 patched together"
    assert figure.lines()[1:] == [f"{NOTE}; dotted: random clip"]
    assert list(figure.legend()) == list(PLACES)
    agree(figure)


def test_a_baseline_of_few_pairs_is_drawn_without_them() -> None:
    table = effects(layer=[0.0, 1.0], place=["sound"])
    few = table.assign(low=np.nan, high=np.nan, n=2, values=[Values((0.1, 0.2))] * len(table))
    line, other, *_ = figures.effect_lines(few, "place", caption=CAPTION).panels[0].marks
    assert line.spread.values[0] == (0.1, 0.2) and other.spread is None


def test_from_a_layer_up_is_said_on_the_axis(by_layer: Any) -> None:
    up = by_layer.assign(last_layer=8.0)
    lines, cells = (
        draw(up, "place", caption=CAPTION).panels[0]
        for draw in (figures.effect_lines, figures.effect_map)
    )
    assert lines.x.title == cells.y.title == "patched from this layer up"
    assert cells.y.categories == ("0", "3", "6")


def test_streams_have_their_own_colours_and_no_baseline_is_said_where_there_is_none() -> None:
    table = effects(layer=[0.0, 1.0], stream=["summary", "frames"])
    figure = figures.effect_lines(table[table["run"] != "other"], "stream", caption=CAPTION)
    slots = {mark.name: mark.look.slot for mark in figure.panels[0].marks if mark.name}
    assert slots == {"summary": "summary", "frames": "frames"}
    assert not figure.note and len(figure.panels[0].marks) == 4


def test_the_note_states_controls_and_pairs_left_out(by_site: Any) -> None:
    controls = pd.DataFrame(
        {"control": ["self", "full"], "expected": [0.0, 1.0], "worst": [2e-6, 0.0]}
    )
    note = figures.note(by_site, controls, 12, False, "noising", "kl")
    assert note == (
        "noising, kl; 9 of 12 pairs (3 not answered right are left out); self-patch 0 (worst pair "
        "off by 2e-06), full-patch 1 (worst pair off by 0), random clip -0.05 to -0.05"
    )
    assert "all pairs" in figures.note(by_site, controls, 9, True, "noising", "kl")

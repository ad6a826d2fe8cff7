"""Grids name each place once, leave out where nothing stands, and resolve on a real layout."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from palscope._routing import Route
from palscope.errors import PalscopeError
from palscope.interventions import Sound, Text, resolve
from palscope.measures import _grids as grids
from palscope.measures._patching import GridCell
from tests import tiny
from tests.interventions.conftest import prompt

PLACES: dict[str, Any] = {"a": Sound(0, 0.6), "b": Sound(0.6, 1.0)}


@pytest.fixture(scope="module")
def plits(make: Any) -> Any:
    return make(Route.plits(tiny.LAYERS))


def labels(cells: list[GridCell]) -> Any:
    """The cells' labels, of which no two are alike."""
    table: Any = pd.DataFrame([cell.labels for cell in cells])
    assert tuple(table.columns) == grids.LABELS
    assert not table.duplicated().any()
    return table


def test_windows_cover_every_layer_once() -> None:
    assert grids.layer_windows(7, 3) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert grids.layer_windows(3) == [(0,), (1,), (2,)]
    assert grids.layers_from(5, 2) == [(0, 1, 2, 3, 4), (2, 3, 4), (4,)]
    with pytest.raises(PalscopeError, match="whole number from 1"):
        grids.layer_windows(4, 0)


def test_steps_cover_the_clip() -> None:
    steps = list(grids.steps(1.0, 0.3).values())
    assert [(s.start, s.end) for s in steps] == [
        pytest.approx(edges) for edges in ((0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.0))
    ]
    assert len(grids.steps(0.9, 0.3)) == 3  # 0.9 / 0.3 is a little more than 3 in floats
    assert len(grids.steps(0.7, 0.1)) == 7
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(PalscopeError, match="positive"):
            grids.steps(1.0, bad)


def test_layers_without_the_stream_are_left_out(pal: Any) -> None:
    """Frames stand in layers 0 and 2, the summary in all four."""
    route, inputs = pal.current_route, prompt(pal)
    for stream, single, pairs in (
        ("frames", {0, 2}, [(0,), (2,)]),
        ("summary", {0, 1, 2, 3}, [(0, 1), (2, 3)]),
        (None, {0, 1, 2, 3}, [(0, 1), (2, 3)]),
    ):
        places: Any = {name: Sound(s.start, s.end, stream) for name, s in PLACES.items()}
        cells = grids.layers_by_places(route, places, grids.layer_windows(tiny.LAYERS))
        table = labels(cells)
        assert set(table["layer"]) == single and set(table["place"]) == {"a", "b"}
        wide = grids.layers_by_places(route, places, grids.layer_windows(tiny.LAYERS, 2))
        assert [cell.addresses[0].layers for cell in wide[::2]] == pairs
        assert set(labels(wide)["last_layer"]) == {1, 3}  # the window's, also where part is empty
        for cell in cells + wide:
            for address in cell.addresses:
                layers = {part.layer for part in resolve(pal, inputs, address).parts}
                assert layers == set(address.layers)


def test_keys_and_values_are_patched_together_and_hold_sound_only(pal: Any) -> None:
    layers = grids.layer_windows(tiny.LAYERS)
    cells = grids.layers_by_places(pal.current_route, PLACES, layers, site="audio_kv")
    assert {tuple(a.site for a in cell.addresses) for cell in cells} == {("audio_k", "audio_v")}
    assert set(labels(cells)["site"]) == {"audio_kv"}
    with pytest.raises(PalscopeError, match="sound only"):
        grids.layers_by_places(pal.current_route, {"last": Text(-1)}, layers, site="audio_kv")


def test_text_is_patched_in_the_residual_stream(pal: Any) -> None:
    inputs = prompt(pal)
    places = grids.text_places(pal.layout(inputs))
    assert list(places) == ["text behind the clip", "last token"]
    table = pal.layout(inputs).table(0)
    last_sound = table.index[table["stream"] != "text"].max()
    behind = resolve(
        pal, inputs, grids.layers_by_places(pal.current_route, places, [(0,)])[0].addresses[0]
    ).parts[0]
    assert behind.columns.tolist() == list(range(last_sound + 1, len(table) - 1))
    cells = grids.layers_by_places(pal.current_route, places, grids.layer_windows(4))
    assert {cell.addresses[0].site for cell in cells} == {"resid_pre"}
    assert labels(cells)["start_s"].isna().all()


def test_streams_are_told_apart(pal: Any) -> None:
    cells = grids.streams_by_layers(pal.current_route, grids.layer_windows(tiny.LAYERS))
    table = labels(cells)
    assert table.groupby("stream")["layer"].apply(list).to_dict() == {
        "frames": [0, 2],
        "summary": [0, 1, 2, 3],
    }
    for cell in cells:
        covered = resolve(pal, prompt(pal), cell.addresses[0]).covered
        assert covered["stream"].tolist() == [cell.labels["stream"]]
        assert covered["end_s"].item() == pytest.approx(1.0)


def test_sites_take_the_stream_where_they_have_streams(pal: Any) -> None:
    cells = grids.sites_by_places(PLACES, stream="summary")
    table = labels(cells)
    assert list(table["site"].unique()) == list(grids.SOUND_SITES)
    shown = table.set_index(["site", "place"])["stream"]
    assert shown["audio_state", "a"] == shown["connector_output", "b"] == "summary"
    assert pd.isna(shown["encoder_output", "a"]) and pd.isna(shown["waveform", "a"])
    for cell in cells:
        if cell.labels["site"] != "waveform":
            resolve(pal, prompt(pal), cell.addresses[0])  # none is refused


def test_every_head_has_a_cell(plits: Any) -> None:
    cells = grids.layers_by_heads(tiny.LAYERS, 4)
    table = labels(cells)
    assert len(table) == tiny.LAYERS * 4 and set(table["place"]) == {"last token"}
    inputs = prompt(plits)
    width = inputs["input_ids"].shape[1]
    for cell in cells[::5]:
        (part,) = resolve(plits, inputs, cell.addresses[0]).parts
        assert part.columns.tolist() == [width - 1]
        assert (part.layer, part.heads) == (cell.labels["layer"], (cell.labels["head"],))


def test_from_each_layer_up_reaches_the_top() -> None:
    route = Route.lal(tiny.LAYERS)
    cells = grids.layers_by_places(route, PLACES, grids.layers_from(tiny.LAYERS))
    assert [cell.addresses[0].layers for cell in cells[::2]] == [
        (0, 1, 2, 3),
        (1, 2, 3),
        (2, 3),
        (3,),
    ]
    assert set(labels(cells)["last_layer"]) == {3}

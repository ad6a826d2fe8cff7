"""What counts as a whole number, and that every entrance for one says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope._routing import FRAMES, FULL, Route, Stream, TokenLayout, route_from_text
from palscope._whole import whole_number, whole_numbers
from palscope.audio import TimeGrid
from palscope.errors import PalscopeError
from palscope.interventions import Address, Sound, Text
from palscope.measures._columns import query_columns
from palscope.measures._grids import layer_windows, layers_from
from palscope.measures._knockout import sliding_windows
from palscope.measures._pathway_mass import seconds_set

ROUTE = Route.plits(4)
LAYOUT = TokenLayout.build(
    torch.tensor([[5, 9, 9, 6, 9]]),
    None,
    audio_token_id=9,
    streams=(FRAMES,),
    frames=[2, 1],
    grid=TimeGrid(0.1),
    durations=[0.2, 0.1],
)

TWO_ROWS = LAYOUT.repeated(2)

NO_NUMBERS: list[Any] = [
    True,
    np.True_,
    torch.tensor(True),
    1.0,
    1.7,
    np.float64(1),
    torch.tensor(1.0),
    "1",
    "12",
    b"1",
    None,
    [[1]],
]

ONE: dict[str, Callable[[Any], Any]] = {
    "whole_number": lambda n: whole_number(n, "n"),
    "Sound.clip": lambda n: Sound(clip=n).clip,
    "Text": lambda n: Text((n,)).what,
    "Stream.ratio": lambda n: Stream("summary", n).ratio,
    "Route.n_layers": lambda n: Route(n, ((FRAMES, (FULL,)),)),
    "cell": lambda n: ROUTE.cell("frames", n),
    "streams_at": lambda n: ROUTE.streams_at(n),
    "frozen_from": lambda n: ROUTE.frozen_from(n),
    "seconds_set": lambda n: int(seconds_set(LAYOUT, 0.0, 0.1, n).sum()),
    "table": lambda n: len(TWO_ROWS.table(n)),
    "layer_windows": lambda n: layer_windows(4, n),
    "layers_from": lambda n: layers_from(4, n),
    "sliding_windows": lambda n: sliding_windows(4, n, 1),
}

SEVERAL: dict[str, Callable[[Any], Any]] = {
    "whole_numbers": lambda n: whole_numbers(n, "n"),
    "Address.layers": lambda n: Address("resid_pre", layers=n).layers,
    "Address.heads": lambda n: Address("head_output", heads=n).heads,
    "with_cell": lambda n: ROUTE.with_cell("frames", n, FULL),
    "mute": lambda n: ROUTE.mute("frames", n),
    "keep": lambda n: ROUTE.keep("frames", n),
    "Route.lal": lambda n: Route.lal(4, n),
    "queries": lambda n: query_columns(LAYOUT, n),
}


@pytest.mark.parametrize("entrance", ONE)
def test_one_number(entrance: str) -> None:
    call = ONE[entrance]
    for kind in (int, np.int64, np.uint8, torch.tensor):
        got = call(kind(1))
        assert got == call(1) and not isinstance(got, np.integer | torch.Tensor)
    for wrong in NO_NUMBERS:
        with pytest.raises(PalscopeError, match="whole number"):
            call(wrong)


@pytest.mark.parametrize("entrance", SEVERAL)
def test_several_numbers(entrance: str) -> None:
    call = SEVERAL[entrance]
    wanted = call([3, 0])
    for given_as in (
        (3, 0),
        np.array([3, 0]),
        torch.tensor([3, 0]),
        [np.int64(3), 0],
        iter([3, 0]),
    ):
        assert call(given_as) == wanted
    for wrong in NO_NUMBERS:
        if wrong is None and entrance in ("Address.layers", "Address.heads", "mute", "Route.lal"):
            continue  # all of them
        with pytest.raises(PalscopeError, match="whole number"):
            call([wrong, 1] if isinstance(wrong, float | bool | np.bool_ | list) else wrong)


@settings(max_examples=30, deadline=None)
@given(st.integers(-5, 5) | st.booleans() | st.floats(-3, 3) | st.text(max_size=2))
def test_a_layer_is_what_python_takes_as_an_index(value: Any) -> None:
    """`range` is the oracle, but for truth values."""
    try:
        known = range(4).index(range(4)[value]) if value >= 0 else None
    except (TypeError, IndexError):
        known = None
    if known is None or isinstance(value, bool):
        with pytest.raises(PalscopeError):
            ROUTE.cell("frames", value)
    else:
        assert ROUTE.cell("frames", value) == FULL


@pytest.mark.parametrize("text", ["frames:F٤", "frames:F04", "frames:P0F4", "frames/٣:F4"])
def test_numbers_in_notation_are_plain_ones(text: str) -> None:
    with pytest.raises(PalscopeError, match="no stream of a route"):
        route_from_text(text)


@pytest.mark.parametrize("given_as", [("1", 2), (True, 2), (1, "2"), (1, False), (None, 1)])
def test_seconds_are_numbers(given_as: Any) -> None:
    with pytest.raises(PalscopeError, match="no stretch"):
        Sound(*given_as)
    assert Sound(np.float32(0.5), np.int64(2)) == Sound(0.5, 2.0)

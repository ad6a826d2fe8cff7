"""Columns and their copies on the host: the same numbers, whatever is done to both."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._routing import FRAMES, SUMMARY, LayerColumns, Route, TokenLayout
from palscope._routing.columns import ContinuedColumns
from palscope.audio._timegrid import TimeGrid
from tests.devices.pretended import FIRST

GRID = TimeGrid(0.05)
ROUTE = Route.lal(2).with_audio_queries()
SOUND, WORD = 9, 3


def layout(device: str) -> TokenLayout:
    """A padded row with a clip of 4 frames, and one of two."""
    ids = torch.tensor([[0, 0, 0, 0, WORD, *[SOUND] * 6, WORD], [WORD, *[SOUND] * 3] + [WORD] * 8])
    return TokenLayout.build(
        ids.to(device),
        (ids > 0).to(device),
        audio_token_id=SOUND,
        streams=(FRAMES, SUMMARY),
        frames=(4, 2),
        grid=GRID,
    )


def same(one: Any, other: Any) -> None:
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, torch.Tensor):
            assert b.device.type == "cpu" and torch.equal(a.cpu().nan_to_num(), b.nan_to_num()), (
                name
            )
        else:
            assert a == b


@pytest.mark.parametrize("times", [1, 3])
def test_a_layout_knows_its_copy_on_the_host(times: int) -> None:
    far, near = layout(FIRST), layout("cpu")
    assert near.on_host is near and far.stream.device == torch.device(FIRST)
    word = TokenLayout.build(
        torch.full((2 * times, 1), WORD, device=FIRST),
        None,
        audio_token_id=SOUND,
        streams=(FRAMES, SUMMARY),
        frames=(),
        grid=GRID,
    )
    for made in (far, far.repeated(times), far.repeated(times).followed_by(word, GRID)):
        assert made.stream.device == torch.device(FIRST)
        same(made, made.on_host)


@pytest.mark.parametrize("layer", [0, 1])
def test_columns_know_their_copy_on_the_host(layer: int) -> None:
    far, near = (layout(device).layer_columns(ROUTE, layer) for device in (FIRST, "cpu"))
    same(far, near)
    later = far.behind(far, 12)
    assert isinstance(later, ContinuedColumns)
    for made in (far, far.repeated(2), later, far.reading(far.keys)):
        assert made.keys.device == torch.device(FIRST)
        same(made, made.on_host)
        assert torch.equal(made.keys.cpu(), made.on_host.keys)


def test_what_is_fed_stays_one_object_where_it_is_all() -> None:
    all_fed: LayerColumns = layout(FIRST).layer_columns(Route.plits(2), 0)
    assert all_fed.feeds_all and all_fed.on_host.feeds_all
    for made in (all_fed.repeated(2), all_fed.behind(all_fed, 12)):
        assert made.feeds_all and made.on_host.feeds_all
    some = layout(FIRST).layer_columns(ROUTE, 0)
    assert not some.feeds_all and not some.repeated(2).feeds_all

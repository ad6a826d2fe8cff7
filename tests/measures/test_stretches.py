"""Stretches to compare with: as long, elsewhere, and without a token of the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from palscope.interventions import Sound
from palscope.measures import disjoint_stretches
from palscope.measures._knockout import cuts_of_text
from palscope.measures._stretches import stretches_beside
from tests.hooks.conftest import noise


@pytest.mark.parametrize(
    "start, end, seconds, wanted",
    [
        (1.0, 1.5, 3.2, [(0.0, 0.5), (0.5, 1.0), (1.5, 2.0), (2.0, 2.5), (2.5, 3.0)]),
        (0.3, 0.4, 0.6, [(0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.4, 0.5), (0.5, 0.6)]),
        (0.2, 1.1, 1.9, []),
    ],
)
def test_stretches_are_laid_out_from_the_selection(
    start: float, end: float, seconds: float, wanted: Any
) -> None:
    found = disjoint_stretches(start, end, seconds)
    np.testing.assert_allclose(np.array(found).reshape(-1, 2), np.array(wanted).reshape(-1, 2))


def test_stretches_keep_clear_of_the_selection_s_tokens() -> None:
    found = disjoint_stretches(1.0, 1.5, 3.2, clear_of=(0.9, 1.8))
    wanted = [(0.4, 0.9), (1.8, 2.3), (2.3, 2.8)]
    np.testing.assert_allclose(found, wanted)


def test_only_tokens_that_are_cut_keep_others_off(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(1.9))
    # Frames of 0.1 s, keys in layers 0 and 2; a summary of 0.3 s, everywhere.
    for layers in (None, [1, 3]):
        cuts = cuts_of_text(pal.current_route, [Sound(0.35, 0.6)], layers=layers)
        found = stretches_beside(pal, inputs, cuts, 0.35, 0.6, 1.9)
        assert found[0] == pytest.approx((0.05, 0.3)) and found[1][0] == pytest.approx(0.6)
    frames = cuts_of_text(pal.current_route, [Sound(0.4, 0.6, "frames")])
    found = stretches_beside(pal, inputs, frames, 0.4, 0.6, 1.9)
    np.testing.assert_allclose(found[:3], [(0.0, 0.2), (0.2, 0.4), (0.6, 0.8)], atol=1e-6)


def test_a_stream_is_cut_where_text_reads_it(pal: Any) -> None:
    route = pal.current_route
    both = [Sound(0.1, 0.2, "frames"), Sound(0.1, 0.2, "summary")]
    (cut,) = cuts_of_text(route, both, layers=[1, 3], heads=(2,))
    assert cut.address.tokens == both[1]
    assert (cut.address.layers, cut.address.heads) == ((1, 3), (2,))
    assert [each.address.layers for each in cuts_of_text(route, both)] == [None, None]
    frames = cuts_of_text(route, both[:1], layers=range(4))
    assert [each.address.layers for each in frames] == [(0, 2)]
    assert cuts_of_text(route, both[:1], layers=[1]) == []

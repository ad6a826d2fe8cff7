"""Which tokens lie in a stretch of time, against comparing every span with every stretch."""

from __future__ import annotations

import math

import pytest
import torch

from palscope._connectors.regions import find_regions
from palscope.audio._timegrid import TimeGrid
from tests.connectors.sources import COARSE, FINE, PATCHES

STRETCHES = {
    "steps of 0.1 s": [(0.1 * i, 0.1 * (i + 1)) for i in range(12)],
    "steps of 0.32 s": [(0.32 * i, 0.32 * (i + 1)) for i in range(4)],
    "overlapping": [(max(0.0, 0.32 * i - 0.33), 0.32 * i + 0.65) for i in range(4)],
    "odd": [(0.0, 0.011), (0.301, 0.3126), (0.9, 7.0), (5.0, 6.0)],
    "the clip": [(0.0, math.inf)],
}


@pytest.mark.parametrize("grid", [FINE.grid, PATCHES.grid, COARSE.grid], ids=str)
@pytest.mark.parametrize("name", STRETCHES)
def test_tokens_in_a_stretch_are_those_whose_spans_overlap_it(grid: TimeGrid, name: str) -> None:
    stretches = STRETCHES[name]
    n = grid.tokens(1.25)
    regions = find_regions(grid, torch.tensor(stretches, dtype=torch.float64), n)
    assert int(regions.index.min()) >= 0 and int(regions.index.max()) < n
    for row, (start, end) in enumerate(stretches):
        spans = [grid.span(i) for i in range(n)]
        overlaps = [min(end, b) - max(start, a) for a, b in spans]
        wanted = [i for i, overlap in enumerate(overlaps) if overlap > 1e-6]
        inside = regions.inside[row]
        assert regions.index[row][inside].tolist() == wanted
        torch.testing.assert_close(
            regions.seconds[row][inside], torch.tensor([overlaps[i] for i in wanted])
        )
        assert not regions.seconds[row][~inside].any()


def test_tokens_of_the_whole_clip_lie_in_every_stretch() -> None:
    grid = TimeGrid(math.inf, per_step=3)
    stretches = torch.tensor([[0.0, 0.1], [4.0, 5.0]], dtype=torch.float64)
    regions = find_regions(grid, stretches, 3)
    assert regions.index.tolist() == [[0, 1, 2]] * 2
    assert regions.inside.all() and (regions.seconds == 1).all()


def test_padding_lies_in_no_stretch() -> None:
    stretches = torch.tensor([[0.0, 0.1], [0.1, 0.2]], dtype=torch.float64)
    of_clips = find_regions(FINE.grid, stretches, 10).of_clips(torch.tensor([7, 10, 3]))
    assert of_clips.sum(-1).tolist() == [[5, 2], [5, 5], [3, 0]]

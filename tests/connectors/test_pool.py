"""Pooling over a clip's own tokens; several encoders side by side, by their overlap in time."""

from __future__ import annotations

import math

import pytest
import torch

from palscope._connectors import Connector, ConnectorConfig, FramePool
from palscope._routing import FRAMES
from palscope.audio._timegrid import TimeGrid
from palscope.encoders import EncoderOutput
from palscope.encoders._base import EncoderTokens
from tests.connectors.sources import COARSE, FINE, PATCHES, WHOLE, outputs


def source(width: int) -> EncoderTokens:
    return EncoderTokens(width, TimeGrid(0.02))


def test_frames_are_means_of_standardised_real_tokens() -> None:
    pool = FramePool([source(2)], 5, "mean")
    pool.mean.copy_(torch.tensor([1.0, 2.0]))
    pool.deviation.copy_(torch.tensor([2.0, 4.0]))
    states = torch.randn(2, 12, 2)
    states[0, 7:] = float("nan")  # padding may hold anything
    frames = pool(states, torch.tensor([7, 12]))
    assert frames.shape == (2, 3, 2)
    scale = torch.tensor([2.0, 4.0])
    for clip, length in enumerate((7, 12)):
        for frame in range(pool.tokens(length)):
            own = states[clip, 5 * frame : min(5 * frame + 5, length)]
            wanted = ((own - torch.tensor([1.0, 2.0])) / scale).mean(0)
            torch.testing.assert_close(frames[clip, frame], wanted)
    assert not frames[0, 2].any()


def test_stacked_frames_hold_every_token_and_zeros_for_missing_ones() -> None:
    pool = FramePool([source(3)], 4, "stack")
    states = torch.randn(1, 6, 3)
    frames = pool(states, torch.tensor([6]))
    assert frames.shape == (1, 2, 12) and pool.width == 12
    torch.testing.assert_close(frames[0, 0], states[0, :4].flatten())
    torch.testing.assert_close(frames[0, 1, :6], states[0, 4:].flatten())
    assert not frames[0, 1, 6:].any()


def test_patches_are_pooled_within_a_step_or_over_whole_ones() -> None:
    ((states, lengths),) = outputs([PATCHES], [0.8])
    for k, seconds, per_step in ((2, 0.16, 2), (4, 0.16, 1), (8, 0.32, 1)):
        pool = FramePool([PATCHES], k, "mean")
        assert (pool.grid.seconds_per_step, pool.grid.per_step) == (seconds, per_step)
        frames = pool(states, lengths)
        assert frames.shape[1] == pool.tokens(int(lengths[0])) == -(-20 // k)
        torch.testing.assert_close(frames[0, 1], states[0, k : 2 * k].mean(0))
        assert pool.tokens(20) == pool.grid.tokens(0.8)


@pytest.mark.parametrize("other", [FINE, PATCHES, COARSE, WHOLE], ids=lambda s: str(s.grid))
def test_another_encoders_tokens_are_averaged_over_a_frames_seconds(other: EncoderTokens) -> None:
    connector = Connector(ConnectorConfig(), [FINE, other], 8, (FRAMES,))
    batch = outputs([FINE, other], [0.77, 1.6])
    frames = connector(batch)["frames"]
    assert frames.shape == (2, 16, FINE.width + other.width)
    for clip, seconds in enumerate((0.77, 1.6)):
        count = math.ceil(seconds / 0.1)
        assert not frames[clip, count:].any()
        states, lengths = batch[1]
        own = states[clip, : lengths[clip]]
        for frame in range(count):
            start, end = 0.1 * frame, 0.1 * (frame + 1)
            weights = torch.tensor(
                [
                    1.0 if other.grid.whole_clip else max(0.0, min(end, b) - max(start, a))
                    for a, b in (other.grid.span(i) for i in range(len(own)))
                ]
            )
            weights = torch.where(weights > 1e-6, weights, 0.0)
            wanted = (weights[:, None] * own).sum(0) / weights.sum()
            torch.testing.assert_close(frames[clip, frame, FINE.width :], wanted)


def test_by_overlap_is_the_mean_pool_where_grids_divide() -> None:
    batch = outputs([FINE, FINE], [1.37, 2.0])
    frames = Connector(ConnectorConfig(), [FINE, FINE], 8, (FRAMES,))([batch[0], batch[0]])
    first, second = frames["frames"].split(FINE.width, -1)
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)
    alone = Connector(ConnectorConfig(), [FINE], 8, (FRAMES,))(batch[:1])["frames"]
    assert torch.equal(alone, first)


def test_each_encoder_is_standardised_by_its_own_statistics() -> None:
    connector = Connector(ConnectorConfig(), [FINE, COARSE], 8, (FRAMES,))
    batch = outputs([FINE, COARSE], [1.0])
    before = connector(batch)["frames"]
    connector.standardise(torch.arange(10.0), torch.full((10,), 2.0))
    torch.testing.assert_close(connector(batch)["frames"], (before - torch.arange(10.0)) / 2)


def test_an_encoder_that_ends_early_leaves_zeros() -> None:
    connector = Connector(ConnectorConfig(), [FINE, COARSE], 8, (FRAMES,))
    fine, coarse = outputs([FINE, COARSE], [1.0])
    short = EncoderOutput(coarse.states, torch.tensor([2]))  # 0.3125 s
    frames = connector([fine, short])["frames"][0, :, FINE.width :]
    assert frames[:4].all() and not frames[4:].any()

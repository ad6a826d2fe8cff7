"""Connectors: pooling over a clip's own tokens, the summary's convolution, scale, what serves."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from palscope._connectors import (
    MLP,
    Connector,
    ConnectorConfig,
    FramePool,
    LFSTConfig,
    ProjectorConfig,
    QFormerConfig,
    StridedSummary,
)
from palscope._routing import FRAMES, SUMMARY, Route
from palscope.audio._timegrid import TimeGrid
from palscope.encoders import EncoderOutput
from palscope.encoders._base import EncoderTokens
from palscope.errors import CheckpointError, RouteError
from tests.connectors.sources import COARSE, FINE, PATCHES, outputs

FOUR = EncoderTokens(4, TimeGrid(0.02))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("rms", [0.05, 1.0])
def test_a_projector_starts_at_the_scale_asked_for(depth: int, rms: float) -> None:
    torch.manual_seed(0)
    mlp = MLP(256, 256, 256, depth, rms)
    out = mlp(torch.randn(400, 256))
    assert out.square().mean().sqrt().item() == pytest.approx(rms, rel=0.15)
    assert sum(isinstance(part, torch.nn.Linear) for part in mlp) == depth


def test_a_summary_reads_its_own_frames_alone() -> None:
    torch.manual_seed(0)
    summary = StridedSummary(4, 6, 3)
    frames = torch.randn(1, 7, 4)
    out = summary(frames)
    assert out.shape == (1, 3, 6)
    weight, bias = summary.conv.weight, summary.conv.bias
    assert bias is not None
    wanted = bias + torch.einsum("ock,kc->o", weight, frames[0, 3:6])
    torch.testing.assert_close(out[0, 1], wanted)
    short = bias + weight[:, :, 0] @ frames[0, 6]
    torch.testing.assert_close(out[0, 2], short)


def test_a_clip_gives_the_same_in_a_batch_with_longer_ones() -> None:
    torch.manual_seed(0)
    shape = ProjectorConfig(8, 2)
    config = ConnectorConfig(inputs={"frames": shape, "summary": shape}, summary_width=8)
    connector = Connector(config, [FOUR], 8, (FRAMES, SUMMARY))
    states = torch.randn(2, 40, 4)
    batch = connector([EncoderOutput(states, torch.tensor([13, 40]))])
    alone = connector([EncoderOutput(states[:1, :13], torch.tensor([13]))])
    for name, tokens in alone.items():
        torch.testing.assert_close(batch[name][:1, : tokens.shape[1]], tokens)
    assert alone["frames"].shape[1] == 3 and alone["summary"].shape[1] == 1


def test_for_route_has_just_the_projectors_that_the_route_needs() -> None:
    pal = ConnectorConfig.for_route(Route.pal(6))
    assert pal.projected_layers == {"frames": (0, 1)}
    assert set(pal.inputs) == {"summary"} and set(pal.layers) == {"frames"}
    plits = ConnectorConfig.for_route(Route.plits(6).mute("frames", [2]))
    assert set(plits.inputs) == {"frames"} and not plits.layers
    muted = ConnectorConfig.for_route(Route.plits(6).mute("frames"))
    assert not muted.inputs and not muted.layers
    for route, config in ((Route.pal(6), pal), (Route.plits(6), plits)):
        Connector(config, [FOUR], 8, route.streams).check_serves(route)


def test_json_gives_the_same_config_back() -> None:
    config = ConnectorConfig.for_route(
        Route.pal(6), layers=ProjectorConfig(7, 3, 0.5), pool="stack"
    )
    assert ConnectorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "resampler",
    [QFormerConfig(latents=7, window_s=0.5), LFSTConfig(reads=(1, 0), regions_s=(0.4, 0.8))],
    ids=lambda config: config.kind,
)
def test_json_gives_the_same_resampler_back(resampler: QFormerConfig | LFSTConfig) -> None:
    config = ConnectorConfig.for_route(Route.pal(6), resampler=resampler)
    data = json.loads(json.dumps(config.to_dict()))
    assert ConnectorConfig.from_dict(data) == config
    assert data["resampler"]["kind"] == resampler.kind


def test_a_config_without_a_resampler_pools() -> None:
    """As those that were saved before there were others."""
    data = ConnectorConfig.for_route(Route.pal(6)).to_dict()
    assert data.pop("resampler") is None
    config = ConnectorConfig.from_dict(data)
    assert config.resampler is None
    assert isinstance(Connector(config, [FOUR], 8, (FRAMES, SUMMARY)).pool, FramePool)


@pytest.mark.parametrize(
    ("resampler", "says"),
    [
        ({"kind": "perceiver"}, "no resampler of kind 'perceiver'; expected one of qformer, lfst"),
        ({}, "no resampler of kind None"),
        ({"kind": "qformer", "latent": 3}, "qformer resampler hold latent; expected only latents,"),
    ],
)
def test_a_resampler_that_does_not_exist_is_refused(resampler: Any, says: str) -> None:
    data = ConnectorConfig().to_dict() | {"resampler": resampler}
    with pytest.raises(CheckpointError, match=says):
        ConnectorConfig.from_dict(data)


def test_settings_of_the_pool_beside_a_resampler_are_refused() -> None:
    for pooled in ({"frames_per_token": 3}, {"pool": "stack"}):
        with pytest.raises(CheckpointError, match="nothing beside the resampler 'qformer'"):
            ConnectorConfig(resampler=QFormerConfig(), **pooled)


@pytest.mark.parametrize(
    ("config", "encoders", "grid"),
    [
        (ConnectorConfig(), [FINE], TimeGrid(0.1)),
        (ConnectorConfig(frames_per_token=4), [PATCHES, FINE], TimeGrid(0.16)),
        (ConnectorConfig(resampler=QFormerConfig(latents=9)), [FINE], TimeGrid(math.inf, 9)),
        (
            ConnectorConfig(resampler=QFormerConfig(latents=9, window_s=0.5)),
            [FINE],
            TimeGrid(0.5, 9),
        ),
        (ConnectorConfig(resampler=LFSTConfig()), [PATCHES, COARSE], TimeGrid(0.32, 2)),
    ],
)
def test_the_frame_grid_is_known_before_there_are_weights(
    config: ConnectorConfig, encoders: list[EncoderTokens], grid: TimeGrid
) -> None:
    assert config.frame_grid(encoders) == grid
    connector = Connector(config, encoders, 8, (FRAMES,))
    assert connector.grid == grid
    for seconds in (0.01, 0.32, 0.33, 1.0, 4.567):
        count = encoders[0].grid.tokens(seconds)
        assert connector.pool.tokens(count) == grid.tokens(seconds)
        assert connector(outputs(encoders, [seconds]))["frames"].shape[1] == grid.tokens(seconds)


@pytest.mark.parametrize(
    ("route", "messages"),
    [
        (Route.lal(6, [1, 3, 5]), [r"layers \[3, 5\]", r"layers that have one: \[0, 1\]"]),
        (Route.plits(6), ["carry stream 'frames'", r"have one: \['summary'\]"]),
        (Route.lal(6, [0]).frozen_from(0), ["carry stream 'frames'"]),
        (Route.pal(6).with_audio_queries(), ["carry stream 'frames'"]),
    ],
)
def test_routes_without_weights_are_refused_with_those_that_have(
    route: Route, messages: list[str]
) -> None:
    connector = Connector(ConnectorConfig.for_route(Route.pal(6)), [FOUR], 8, (FRAMES, SUMMARY))
    for message in messages:
        with pytest.raises(RouteError, match=message):
            connector.check_serves(route)


def test_a_stream_of_another_ratio_is_refused() -> None:
    from palscope._routing import Stream

    connector = Connector(ConnectorConfig.for_route(Route.pal(6)), [FOUR], 8, (FRAMES, SUMMARY))
    with pytest.raises(RouteError, match=r"no stream 'summary' of ratio 4.*summary \(ratio 3\)"):
        connector.check_serves(Route.pal(6, summary=Stream("summary", 4)))


def test_standardising_a_constant_feature_divides_by_no_zero() -> None:
    connector = Connector(ConnectorConfig(), [EncoderTokens(2, FOUR.grid)], 8, (FRAMES,))
    connector.standardise(torch.ones(2), torch.zeros(2))
    ones = EncoderOutput(torch.ones(1, 5, 2), torch.tensor([5]))
    assert connector([ones])["frames"].isfinite().all()

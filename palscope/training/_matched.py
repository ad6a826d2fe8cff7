"""Connectors for different routes with about the same number of trained parameters.

Else depth would be mixed up with size: LAL in all layers has more projectors than in a few.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import torch

from palscope._connectors import (
    Connector,
    ConnectorConfig,
    LFSTConfig,
    ProjectorConfig,
    QFormerConfig,
)
from palscope._routing import Route
from palscope.encoders._base import EncoderTokens

WIDEST = 1 << 14
"""Of a hidden layer, in channels."""


def connector_parameters(
    config: ConnectorConfig, route: Route, encoders: Sequence[EncoderTokens], width: int
) -> int:
    """Number of parameters of a connector into a decoder of `width` channels, without making it.

    `encoders` are what the encoder emits (`Encoder.emits`).
    """
    with torch.device("meta"):
        connector = Connector(config, encoders, width, route.streams)
    return sum(parameter.numel() for parameter in connector.parameters())


def matched_connector(
    route: Route,
    parameters: int,
    *,
    encoders: Sequence[EncoderTokens],
    width: int,
    inputs: ProjectorConfig,
    layers: ProjectorConfig,
    summary_width: int = 512,
    resampler: QFormerConfig | LFSTConfig | None = None,
) -> ConnectorConfig:
    """The connector for `route` whose number of parameters comes closest to `parameters`.

    The hidden width of the layer projectors is chosen; where the route has none, that of the input
    projectors.

    Args:
        route: the route to train on.
        parameters: to come close to.
        encoders: what the encoder emits (`Encoder.emits`).
        width: channels of the decoder.
        inputs: the shape of input projectors; its hidden width counts only beside layer projectors.
        layers: the shape of layer projectors but for the hidden width.
        summary_width: channels of the summary convolution.
        resampler: as it is; its parameters count.
    """
    projected = any(cell.symbol == "P" for _, cells in route.rows for cell in cells)

    def config(hidden: int) -> ConnectorConfig:
        return ConnectorConfig.for_route(
            route,
            inputs=inputs if projected else replace(inputs, hidden=hidden),
            layers=replace(layers, hidden=hidden),
            summary_width=summary_width,
            resampler=resampler,
        )

    def count(hidden: int) -> int:
        return connector_parameters(config(hidden), route, encoders, width)

    above = bisect_left(range(1, WIDEST), parameters, key=count) + 1
    near = [hidden for hidden in (above - 1, above) if hidden > 0]
    return config(min(near, key=lambda hidden: abs(count(hidden) - parameters)))

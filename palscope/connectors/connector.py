"""The connector: from encoder tokens to the states of each audio stream.

`FramePool` gives frame tokens, `StridedSummary` summary tokens. Of these, an *input projector*
makes the state that a stream carries from the bottom of the decoder upwards (PLITS), and a *layer
projector* the state that a layer reads as keys and values (LAL). A checkpoint has those it was
trained with; a route that needs others is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palscope.audio.timegrid import TimeGrid
from palscope.connectors.mlp import MLP, FramePool, Pool
from palscope.connectors.summary import StridedSummary
from palscope.encoders.base import EncoderOutput, EncoderTokens
from palscope.errors import RouteError
from palscope.routing import Level, Route, Source, Stream


@dataclass(frozen=True)
class ProjectorConfig:
    """An MLP into the decoder's width. All values are palscope's defaults; the paper states none.

    Attributes:
        hidden: width of the hidden layers.
        depth: number of linear layers.
        output_rms: scale of the output at initialisation.
    """

    hidden: int = 512
    depth: int = 2
    output_rms: float = 1.0


@dataclass(frozen=True)
class ConnectorConfig:
    """What the connector consists of.

    Attributes:
        frames_per_token: encoder tokens in one frame token.
        pool: average them, or stack them side by side.
        inputs: input projector of each stream that has one, by the stream's name.
        layers: layer projectors of each stream that has some, by the stream's name.
        projected_layers: the decoder layers that those stand for.
        summary_width: channels of the summary convolution.
    """

    frames_per_token: int = 5
    pool: Pool = "mean"
    inputs: dict[str, ProjectorConfig] = field(default_factory=dict[str, ProjectorConfig])
    layers: dict[str, ProjectorConfig] = field(default_factory=dict[str, ProjectorConfig])
    projected_layers: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    summary_width: int = 512

    def frame_grid(self, encoders: Sequence[EncoderTokens]) -> TimeGrid:
        """The time grid of the frame tokens made of these encoders' tokens.

        Raises `AudioError` when `frames_per_token` does not fit an encoder's steps.
        """
        return encoders[0].grid.coarsen(self.frames_per_token)

    @classmethod
    def for_route(
        cls,
        route: Route,
        *,
        inputs: ProjectorConfig | None = None,
        layers: ProjectorConfig | None = None,
        **others: Any,
    ) -> ConnectorConfig:
        """The connector that has just the projectors that `route` needs."""
        projected = {
            s.name: tuple(i for i, c in enumerate(cells) if c.source is Source.PROJECTED)
            for s, cells in route.rows
        }
        projected = {name: chosen for name, chosen in projected.items() if chosen}
        carried = [
            s.name
            for s, cells in route.rows
            if any(c.level is not Level.ABSENT and c.source is Source.CARRIED for c in cells)
        ]
        return cls(
            inputs={name: inputs or ProjectorConfig() for name in carried},
            layers={name: layers or ProjectorConfig() for name in projected},
            projected_layers=projected,
            **others,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON config."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ConnectorConfig:
        """A config from what `to_dict` gave."""
        data = dict(data)
        for key in ("inputs", "layers"):
            data[key] = {name: ProjectorConfig(**value) for name, value in data[key].items()}
        data["projected_layers"] = {
            name: tuple(layers) for name, layers in data["projected_layers"].items()
        }
        return cls(**data)


class Connector(nn.Module):
    """Encoder tokens to stream states, for `streams` of a decoder of width `outputs`.

    Args:
        encoders: what the encoder emits (`Encoder.emits`).
    """

    def __init__(
        self,
        config: ConnectorConfig,
        encoders: Sequence[EncoderTokens],
        outputs: int,
        streams: tuple[Stream, ...],
    ) -> None:
        super().__init__()
        self.config = config
        self.streams = streams
        self.grid = config.frame_grid(encoders)
        (encoder,) = encoders
        self.pool = FramePool(encoder.width, config.frames_per_token, config.pool)
        self.summaries = nn.ModuleDict(
            {
                stream.name: StridedSummary(self.pool.width, config.summary_width, stream.ratio)
                for stream in streams
                if stream.ratio > 1
            }
        )

        def mlp(stream: str, shape: ProjectorConfig) -> MLP:
            inputs = config.summary_width if stream in self.summaries else self.pool.width
            return MLP(inputs, shape.hidden, outputs, shape.depth, shape.output_rms)

        self.input_projectors = nn.ModuleDict(
            {name: mlp(name, shape) for name, shape in config.inputs.items()}
        )
        self.layer_projectors = nn.ModuleDict(
            {
                name: nn.ModuleDict(
                    {
                        f"layer_{i}": mlp(name, config.layers[name])
                        for i in config.projected_layers[name]
                    }
                )
                for name in config.layers
            }
        )

    def forward(
        self, outputs: Sequence[EncoderOutput]
    ) -> dict[str, Float[Tensor, "clips stream_tokens pooled"]]:
        """The tokens of each stream, before any projector, of the encoder's `outputs`."""
        ((states, lengths),) = outputs
        frames = self.pool(states.to(self.pool.mean.dtype), lengths)
        return {
            stream.name: self.summaries[stream.name](frames) if stream.ratio > 1 else frames
            for stream in self.streams
        }

    def project_input(self, stream: str, tokens: Tensor) -> Tensor:
        """The state that `stream` carries upwards from the bottom of the decoder."""
        return self.input_projectors[stream](tokens)

    def project_layer(self, stream: str, layer: int, tokens: Tensor) -> Tensor:
        """The state of `stream` that `layer` reads as keys and values."""
        projectors = self.layer_projectors[stream]
        assert isinstance(projectors, nn.ModuleDict)
        return projectors[f"layer_{layer}"](tokens)

    def check_serves(self, route: Route) -> None:
        """Check that these weights can run `route`.

        Raises:
            RouteError: they cannot; the message names what there are weights for.
        """
        have = {stream.name: stream for stream in self.streams}
        for stream, cells in route.rows:
            if have.get(stream.name) != stream:
                known = ", ".join(f"{s.name} (ratio {s.ratio})" for s in self.streams)
                raise RouteError(
                    f"this checkpoint has no stream {stream.name!r} of ratio {stream.ratio}; "
                    f"it has: {known}."
                )
            projected = self.config.projected_layers.get(stream.name, ())
            wanted = [i for i, c in enumerate(cells) if c.source is Source.PROJECTED]
            missing = [i for i in wanted if i not in projected]
            if missing:
                raise RouteError(
                    f"stream {stream.name!r} has no projector for layers {missing}; "
                    f"layers that have one: {list(projected) or 'none'}."
                )
            carried = [
                i
                for i, c in enumerate(cells)
                if c.level is not Level.ABSENT and c.source is Source.CARRIED
            ]
            if carried and stream.name not in self.config.inputs:
                raise RouteError(
                    f"layers {carried} carry stream {stream.name!r} upwards, but this checkpoint "
                    f"has no input projector for it. Streams that have one: "
                    f"{sorted(self.config.inputs) or 'none'}; layers with a projector of their "
                    f"own: {list(projected) or 'none'}."
                )

    @torch.no_grad()
    def standardise(self, mean: Float[Tensor, "width"], deviation: Float[Tensor, "width"]) -> None:
        """Set the features' mean and deviation, measured over a training set."""
        self.pool.mean.copy_(mean)
        self.pool.deviation.copy_(deviation.clamp(min=1e-5))

"""The connector: from encoder tokens to the states of each audio stream.

A resampler (`FramePool`, `QFormer` or `LFST`) gives frame tokens, `StridedSummary` summary tokens
of these. Of both, an *input projector*
makes the state that a stream carries from the bottom of the decoder upwards (PLITS), and a *layer
projector* the state that a layer reads as keys and values (LAL). A checkpoint has those it was
trained with; a route that needs others is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palscope._connectors.features import Standard
from palscope._connectors.lfst import LFST, LFSTConfig
from palscope._connectors.mlp import MLP
from palscope._connectors.pool import FramePool, Pool
from palscope._connectors.qformer import QFormer, QFormerConfig
from palscope._connectors.resampler import Resampler
from palscope._connectors.summary import StridedSummary
from palscope._registry import find
from palscope._routing import Level, Route, Source, Stream
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._base import EncoderOutput, EncoderTokens
from palscope.errors import CheckpointError, RouteError


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
        frames_per_token: tokens of the first encoder in one frame token.
        pool: average them, or stack them side by side.
        resampler: in place of these two, a Q-Former's or LFST's settings.
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
    resampler: QFormerConfig | LFSTConfig | None = None

    def __post_init__(self) -> None:
        pooled = (self.frames_per_token, self.pool) != (5, "mean")
        if self.resampler is not None and pooled:
            raise CheckpointError(
                f"frames_per_token={self.frames_per_token} and pool={self.pool!r} would do nothing "
                f"beside the resampler {self.resampler.kind!r}; leave them out."
            )

    def frame_grid(self, encoders: Sequence[EncoderTokens]) -> TimeGrid:
        """The time grid of the frame tokens made of these encoders' tokens.

        Raises:
            PalscopeError: steps of time do not fit those of the first encoder.
        """
        if self.resampler is None:
            return encoders[0].grid.coarsen(self.frames_per_token)
        return self.resampler.frame_grid(encoders)

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
        data = asdict(self)
        if self.resampler is not None:
            data["resampler"] = {"kind": self.resampler.kind, **asdict(self.resampler)}
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ConnectorConfig:
        """A config from what `to_dict` gave.

        Raises:
            CheckpointError: the resampler is of no known kind, or has settings that it does not.
        """
        data = dict(data)
        data["resampler"] = _resampler_config(data.get("resampler"))
        for key in ("inputs", "layers"):
            data[key] = {name: ProjectorConfig(**value) for name, value in data[key].items()}
        data["projected_layers"] = {
            name: tuple(layers) for name, layers in data["projected_layers"].items()
        }
        return cls(**data)


class ResamplerEntry(NamedTuple):
    """The classes of one kind of resampler."""

    config_class: type[QFormerConfig] | type[LFSTConfig]
    resampler_class: Callable[[Sequence[EncoderTokens], Any], Resampler]


RESAMPLERS = {
    QFormerConfig.kind: ResamplerEntry(QFormerConfig, QFormer),
    LFSTConfig.kind: ResamplerEntry(LFSTConfig, LFST),
}
"""By the kind that a config writes."""


def _resampler_config(data: dict[str, Any] | None) -> QFormerConfig | LFSTConfig | None:
    if data is None:
        return None
    settings = dict(data)
    kind = settings.pop("kind", None)
    config_class, _ = find(RESAMPLERS, kind, "resampler of kind", hint="Or none, for pooling.")
    known = [each.name for each in fields(config_class)]
    if unknown := sorted(settings.keys() - set(known)):
        raise CheckpointError(
            f"settings of the {kind} resampler hold {', '.join(unknown)}; expected only "
            f"{', '.join(known)}."
        )
    return config_class(**settings)


def _build_resampler(config: ConnectorConfig, encoders: Sequence[EncoderTokens]) -> Resampler:
    if config.resampler is None:
        return FramePool(encoders, config.frames_per_token, config.pool)
    return RESAMPLERS[config.resampler.kind].resampler_class(encoders, config.resampler)


class Connector(nn.Module):
    """Encoder tokens to stream states.

    Attributes:
        pool: the resampler: a pool, a Q-Former or LFST. It standardises the first encoder's tokens.
        grid: that of the frame tokens.
        others: what standardises the tokens of each further encoder.
    """

    def __init__(
        self,
        config: ConnectorConfig,
        encoders: Sequence[EncoderTokens],
        outputs: int,
        streams: tuple[Stream, ...],
    ) -> None:
        """Random weights.

        Args:
            config: the settings.
            encoders: what the encoder emits (`Encoder.emits`).
            outputs: channels of the decoder.
            streams: those to make tokens of.

        Raises:
            PalscopeError: the resampler does not fit the encoders.
        """
        super().__init__()
        self.config = config
        self.streams = streams
        self.pool = _build_resampler(config, encoders)
        self.grid = self.pool.grid
        self.others = nn.ModuleList(Standard(encoder.width) for encoder in encoders[1:])
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
        self,
        outputs: Sequence[EncoderOutput],
    ) -> dict[str, Float[Tensor, "clips _tokens _width"]]:
        """The tokens of each stream, before any projector, of each encoder's output."""
        dtype = self.pool.mean.dtype
        (states, lengths), *rest = outputs
        others = [
            EncoderOutput(standard(given.to(dtype), counts), counts)
            for standard, (given, counts) in zip(self.others, rest, strict=True)
        ]
        frames = self.pool(states.to(dtype), lengths, others)
        return {
            stream.name: self.summaries[stream.name](frames) if stream.ratio > 1 else frames
            for stream in self.streams
        }

    def project_input(self, stream: str, tokens: Tensor) -> Tensor:
        """The state that `stream` carries upwards from the bottom of the decoder."""
        return self.input_projectors[stream](tokens)

    def project_layer(self, stream: str, layer: int, tokens: Tensor) -> Tensor:
        """The state of `stream` that `layer` reads as keys and values."""
        return self.layer_projector(stream, layer)(tokens)

    def layer_projector(self, stream: str, layer: int) -> nn.Module:
        """What makes that state."""
        projectors = self.layer_projectors[stream]
        assert isinstance(projectors, nn.ModuleDict)
        return projectors[f"layer_{layer}"]

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

    def standardise(
        self, mean: Float[Tensor, " widths"], deviation: Float[Tensor, " widths"]
    ) -> None:
        """Set the features' mean and deviation, measured over a training set.

        Args:
            mean: of each dimension, all encoders' side by side.
            deviation: likewise.
        """
        standards: list[Any] = [self.pool, *self.others]
        widths = [len(standard.mean) for standard in standards]
        means, deviations = torch.split(mean, widths), torch.split(deviation, widths)
        for standard, *statistics in zip(standards, means, deviations, strict=True):
            standard.set_statistics(*statistics)

"""LFST: latents on a grid of time that fuse several encoders by reading each one locally.

Known from the PAL paper (arXiv 2506.10423): a connector of three cross-attention layers that fuses
SSLAM and CLAP. All else here is palscope's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from palscope._connectors.attention import attend
from palscope._connectors.regions import Regions, find_regions
from palscope._connectors.resampler import Reads, Resampler, grid_of_steps
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._base import EncoderOutput, EncoderTokens
from palscope.errors import PalscopeError


@dataclass(frozen=True)
class LFSTConfig:
    """The LFST connector. Three layers are the paper's; every other value is palscope's default.

    Attributes:
        reads: the encoder that each cross-attention layer reads, by number; as many as layers.
        regions_s: seconds around a latent's place that each layer reads, as many as layers; no less
            than a step, so that no token is left out.
        step_s: seconds between places, a multiple of the first encoder's step.
        latents: latents, and so frame tokens, in one place.
        width: channels of the latents, and so of the frame tokens.
        heads: of each cross-attention.
        feed_forward: channels of the hidden layer of each layer's feed-forward network.
    """

    kind: ClassVar[str] = "lfst"

    reads: tuple[int, ...] = (0, 1, 0)
    regions_s: tuple[float, ...] = (0.96, 0.96, 0.96)
    step_s: float = 0.32
    latents: int = 2
    width: int = 512
    heads: int = 8
    feed_forward: int = 2048

    def __post_init__(self) -> None:
        for name in ("reads", "regions_s"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.reads) != len(self.regions_s) or not self.reads:
            raise PalscopeError(
                f"LFST has {len(self.reads)} layers by reads, {len(self.regions_s)} by regions_s; "
                "give both one value for each layer."
            )
        if min(self.regions_s) < self.step_s - 1e-9:
            raise PalscopeError(
                f"regions_s={self.regions_s} around places {self.step_s:g} s apart leave sound "
                "unread; give each layer a region of at least step_s."
            )

    def frame_grid(self, encoders: Sequence[EncoderTokens]) -> TimeGrid:
        """The latents' grid. Raises `PalscopeError` for places of no whole number of steps."""
        return grid_of_steps(encoders[0], self.step_s, self.latents, "LFST's step_s")


class LFST(Resampler):
    """Latents of each place read the encoder tokens around it, layer by layer, padding never.

    All places begin with the same learned latents; what tells them apart is what they read. Each
    layer adds what its cross-attention reads of one encoder, then a feed-forward network's output.
    """

    def __init__(self, encoders: Sequence[EncoderTokens], config: LFSTConfig) -> None:
        unread = sorted(set(range(len(encoders))) ^ set(config.reads))
        if len(encoders) < 2 or unread:
            raise PalscopeError(
                f"LFST fuses two or more encoders, each read by some layer: there are "
                f"{len(encoders)}, and reads={config.reads} names numbers from 0 on."
            )
        super().__init__(encoders, config.width, config.frame_grid(encoders))
        self.config = config
        self.latents = nn.Parameter(0.02 * torch.randn(config.latents, config.width))
        self.layers = nn.ModuleList(
            _Layer(config.width, config.heads, config.feed_forward, encoders[number].width)
            for number in config.reads
        )
        self.norm = nn.LayerNorm(config.width)  # so that projectors start at the scale asked for

    @property
    def local(self) -> bool:
        """Never: a region, or another encoder's token, may reach over its step."""
        return False

    @property
    def attentions(self) -> tuple[nn.Module, ...]:
        """The cross-attention of each layer."""
        return tuple(layer.attention for layer in self.layers)  # pyright: ignore[reportReturnType]

    def reads(self, tokens: Sequence[int]) -> tuple[Reads, ...]:
        """What the keys of each of `attentions` are, for a clip of `tokens` of each encoder."""
        found: list[Reads] = []
        for layer, number in enumerate(self.config.reads):
            region = self._region(layer, self.steps(tokens[0]), tokens[number])
            encoder = torch.full((region.index.shape[1],), number)
            found.append(Reads(encoder, torch.where(region.inside, region.index, -1)))
        return tuple(found)

    def forward(
        self,
        states: Float[Tensor, "clips tokens width"],
        lengths: Int[Tensor, " clips"],
        others: Sequence[EncoderOutput] = (),
    ) -> Float[Tensor, "clips frames resampled"]:
        """The latents of each clip's places; zeros past a clip's last place."""
        clips, steps = len(states), self.steps(states.shape[1])
        read = [EncoderOutput(self.standard(states, lengths), lengths), *others]
        latents = self.latents.expand(clips * steps, -1, -1)
        for number, layer in enumerate(self.layers):
            tokens, counts = read[self.config.reads[number]]
            region = self._region(number, steps, tokens.shape[1], states.device)
            seen = region.of_clips(counts).flatten(0, 1)
            latents = layer(latents, tokens, region.index, seen)
        frames = self.norm(latents).view(clips, steps * self.per_step, self.width)
        return torch.where(self.real_frames(lengths, steps)[..., None], frames, 0.0)

    def _region(
        self, layer: int, steps: int, tokens: int, device: torch.device | None = None
    ) -> Regions:
        """The tokens around each place that `layer` reads."""
        places = self.stretches(steps).mean(1, keepdim=True)
        half = self.config.regions_s[layer] / 2
        around = torch.cat([(places - half).clamp(min=0), places + half], 1)
        return find_regions(self.encoders[self.config.reads[layer]].grid, around, tokens, device)


class _Layer(nn.Module):
    """One layer: cross-attention to one encoder, then a feed-forward network; norms before both."""

    def __init__(self, width: int, heads: int, feed_forward: int, encoder_width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = _LocalAttention(width, heads, encoder_width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width)
        )

    def forward(
        self,
        latents: Float[Tensor, "rows latents width"],
        tokens: Float[Tensor, "clips tokens encoder_width"],
        index: Int[Tensor, "steps places"],
        seen: Bool[Tensor, "rows places"],
    ) -> Float[Tensor, "rows latents width"]:
        latents = latents + self.attention(self.attention_norm(latents), tokens, index, seen)
        return latents + self.feed_forward(self.feed_forward_norm(latents))


class _LocalAttention(nn.Module):
    """Cross-attention of each place's latents to the tokens of its region."""

    def __init__(self, width: int, heads: int, encoder_width: int) -> None:
        super().__init__()
        if width % heads:
            raise PalscopeError(f"width {width} is no multiple of {heads} heads.")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(encoder_width, width)
        self.value = nn.Linear(encoder_width, width)
        self.output = nn.Linear(width, width)
        self.pattern: nn.Module = nn.Identity()

    def forward(
        self,
        latents: Float[Tensor, "rows latents width"],
        tokens: Float[Tensor, "clips tokens encoder_width"],
        index: Int[Tensor, "steps places"],
        seen: Bool[Tensor, "rows places"],
    ) -> Float[Tensor, "rows latents width"]:
        # Keys and values once a token, though regions overlap: [clips, steps, places, width].
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (
                self.query(latents),
                self.key(tokens)[:, index].flatten(0, 1),
                self.value(tokens)[:, index].flatten(0, 1),
            )
        )
        mixed = attend(query, key, value, seen[:, None, None], self.pattern)
        return self.output(mixed.transpose(1, 2).flatten(2))

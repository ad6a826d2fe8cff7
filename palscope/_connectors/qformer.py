"""The Q-Former: learned latents that read a clip's encoder tokens, or those of each window.

The PAL paper (arXiv 2506.10423, section 1) names the Q-Former as a common connector, and gives no
sizes. It is that of BLIP-2 (arXiv 2301.12597), as transformers has it; windows are those of
SALMONN (arXiv 2310.13289).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerMultiHeadAttention

from palscope._connectors.attention import attend
from palscope._connectors.regions import Regions, find_regions
from palscope._connectors.resampler import Reads, Resampler, grid_of_steps
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._base import EncoderOutput, EncoderTokens


@dataclass(frozen=True)
class QFormerConfig:
    """A Q-Former. All values are palscope's defaults; the paper states none.

    Attributes:
        latents: learned queries, and so frame tokens, of a window or of the clip.
        window_s: seconds of a window, a multiple of the first encoder's step; None for one window
            over the whole clip, however long it is.
        width: channels of the latents, and so of the frame tokens.
        layers: each has self-attention among a window's latents, and a feed-forward network.
        heads: of both attentions.
        feed_forward: channels of the feed-forward network's hidden layer.
        cross_attention_every: every so many layers, from the first on, one reads encoder tokens.
        dropout: in training.
    """

    kind: ClassVar[str] = "qformer"

    latents: int = 32
    window_s: float | None = None
    width: int = 512
    layers: int = 2
    heads: int = 8
    feed_forward: int = 2048
    cross_attention_every: int = 1
    dropout: float = 0.0

    def frame_grid(self, encoders: Sequence[EncoderTokens]) -> TimeGrid:
        """The latents' grid. Raises `PalscopeError` for windows of no whole number of steps."""
        if self.window_s is None:
            return TimeGrid(math.inf, self.latents)
        return grid_of_steps(encoders[0], self.window_s, self.latents, "a Q-Former's window_s")


class QFormer(Resampler):
    """Latents of one clip or window read its tokens of all encoders, padding never.

    A lone encoder's states are what transformers' model takes as `encoder_hidden_states`; those of
    several are each mapped to the latents' width and stand one encoder behind the other. Frame
    tokens are the latents' states, window by window.
    """

    def __init__(self, encoders: Sequence[EncoderTokens], config: QFormerConfig) -> None:
        super().__init__(encoders, config.width, config.frame_grid(encoders))
        several = len(encoders) > 1
        self.entries = nn.ModuleList(
            nn.Linear(encoder.width, config.width) for encoder in encoders if several
        )
        self.latents = nn.Parameter(0.02 * torch.randn(config.latents, config.width))
        self.model = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.feed_forward,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                cross_attention_frequency=config.cross_attention_every,
                encoder_hidden_size=config.width if several else encoders[0].width,
            )
        )
        for layer in cast(Any, self.model).encoder.layer:
            if layer.has_cross_attention:
                layer.crossattention.attention.__class__ = _CrossAttention
                layer.crossattention.attention.pattern = nn.Identity()

    @property
    def local(self) -> bool:
        """Whether the latents of a window read that window's sound alone."""
        return super().local and len(self.encoders) == 1

    @property
    def attentions(self) -> tuple[nn.Module, ...]:
        """The cross-attention of each layer that has one."""
        layers: Any = cast(Any, self.model).encoder.layer
        return tuple(
            layer.crossattention.attention for layer in layers if layer.has_cross_attention
        )

    def reads(self, tokens: Sequence[int]) -> tuple[Reads, ...]:
        """What the keys of each of `attentions` are, for a clip of `tokens` of each encoder."""
        regions = self._regions(self.steps(tokens[0]), tokens)
        encoder = [
            torch.full((region.index.shape[1],), number) for number, region in enumerate(regions)
        ]
        token = [torch.where(region.inside, region.index, -1) for region in regions]
        return (Reads(torch.cat(encoder), torch.cat(token, 1)),) * len(self.attentions)

    def forward(
        self,
        states: Float[Tensor, "clips tokens width"],
        lengths: Int[Tensor, " clips"],
        others: Sequence[EncoderOutput] = (),
    ) -> Float[Tensor, "clips frames resampled"]:
        """The latents of each clip's windows; zeros past a clip's last window."""
        clips, steps = len(states), self.steps(states.shape[1])
        read = [EncoderOutput(self.standard(states, lengths), lengths), *others]
        regions = self._regions(steps, [each.states.shape[1] for each in read], states.device)
        keys: list[Tensor] = []
        seen: list[Tensor] = []
        for number, (each, region) in enumerate(zip(read, regions, strict=True)):
            entered = self.entries[number](each.states) if self.entries else each.states
            keys.append(entered[:, region.index])
            seen.append(region.of_clips(each.lengths))
        # A row of the Q-Former's batch is one window of one clip.
        out = self.model(
            self.latents.expand(clips * steps, -1, -1),
            encoder_hidden_states=torch.cat(keys, 2).flatten(0, 1),
            encoder_attention_mask=torch.cat(seen, 2).flatten(0, 1)[:, None, None],
        ).last_hidden_state
        frames = out.view(clips, steps * self.per_step, self.width)
        return torch.where(self.real_frames(lengths, steps)[..., None], frames, 0.0)

    def _regions(
        self, steps: int, tokens: Sequence[int], device: torch.device | None = None
    ) -> list[Regions]:
        """Each encoder's tokens in each window."""
        windows = self.stretches(steps)
        return [
            find_regions(encoder.grid, windows, count, device)
            for encoder, count in zip(self.encoders, tokens, strict=True)
        ]


class _CrossAttention(Blip2QFormerMultiHeadAttention):
    """Transformers' own, whatever attention it is set to, with a pattern where it is hooked."""

    pattern: nn.Module

    def forward(
        self,
        hidden_states: Float[Tensor, "rows latents width"],
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Float[Tensor, "rows places encoder_width"] | None = None,
        encoder_attention_mask: Bool[Tensor, "rows 1 1 places"] | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "rows latents width"], None]:
        assert encoder_hidden_states is not None and encoder_attention_mask is not None
        query, key, value = (
            part.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for part in (
                self.query(hidden_states),
                self.key(encoder_hidden_states),
                self.value(encoder_hidden_states),
            )
        )
        mixed = attend(query, key, value, encoder_attention_mask, self.pattern)
        return mixed.transpose(1, 2).flatten(2), None

"""Frame tokens by pooling encoder tokens over time; several encoders set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palscope._connectors.regions import find_regions
from palscope._connectors.resampler import Resampler
from palscope.encoders._base import EncoderOutput, EncoderTokens

Pool = Literal["mean", "stack"]


class FramePool(Resampler):
    """Standardises encoder features and pools `frames_per_token` of them into a frame token.

    Pooling averages over a clip's own tokens alone, or stacks them, a missing one as zeros. Tokens
    of further encoders are averaged over each frame token's seconds, weighted by how much of it
    they cover, and set side by side with the first encoder's.
    """

    def __init__(
        self, encoders: Sequence[EncoderTokens], frames_per_token: int, pool: Pool
    ) -> None:
        first, *others = encoders
        width = first.width * (frames_per_token if pool == "stack" else 1)
        grid = first.grid.coarsen(frames_per_token)
        super().__init__(encoders, width + sum(other.width for other in others), grid)
        self.frames_per_token = frames_per_token
        self.pool: Pool = pool

    @property
    def local(self) -> bool:
        """Whether the frame tokens of a step read that step's sound alone."""
        return super().local and len(self.encoders) == 1

    def tokens(self, encoder_tokens: int) -> int:
        """Number of frame tokens of a clip with `encoder_tokens` tokens of the first encoder."""
        return -(-encoder_tokens // self.frames_per_token)

    def forward(
        self,
        states: Float[Tensor, "clips tokens width"],
        lengths: Int[Tensor, " clips"],
        others: Sequence[EncoderOutput] = (),
    ) -> Float[Tensor, "clips frames pooled"]:
        """Frame tokens of clips of `lengths` encoder tokens; zeros past a clip's end."""
        clips, tokens, width = states.shape
        k = self.frames_per_token
        standard = self.standard(states, lengths)
        fill = -tokens % k
        standard = nn.functional.pad(standard, (0, 0, 0, fill)).view(clips, -1, k, width)
        real = torch.arange(tokens, device=states.device) < lengths[:, None]
        counts = nn.functional.pad(real, (0, fill)).view(clips, -1, k).sum(-1)
        if self.pool == "stack":
            frames = standard.flatten(2)
        else:
            frames = standard.sum(2) / counts.clamp(min=1)[..., None]
        if not others:
            return frames
        parts = [frames]
        for encoder, other in zip(self.encoders[1:], others, strict=True):
            parts.append(self._mean_over_frames(encoder, other, frames.shape[1]))
        return torch.where((counts > 0)[..., None], torch.cat(parts, -1), 0.0)

    def _mean_over_frames(
        self, encoder: EncoderTokens, tokens: EncoderOutput, frames: int
    ) -> Float[Tensor, "clips frames width"]:
        """The mean of another encoder's tokens over the seconds of each frame token."""
        spans = torch.from_numpy(self.grid.spans(frames))
        states, lengths = tokens
        regions = find_regions(encoder.grid, spans, states.shape[1], states.device)
        weights = regions.of_clips(lengths) * regions.seconds
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
        # No matrix product, which would be a small one for each frame.
        return (weights[..., None].to(states.dtype) * states[:, regions.index]).sum(2)

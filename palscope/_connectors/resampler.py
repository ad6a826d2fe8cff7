"""What every way from encoder tokens to frame tokens has in common: `Resampler`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from palscope._connectors.features import Standard
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._base import EncoderOutput, EncoderTokens, length_mask
from palscope.errors import PalscopeError


@dataclass(frozen=True)
class Reads:
    """What the keys of one cross-attention are, for one clip; -1 marks a place without a token.

    Attributes:
        encoder: number of the encoder that each place belongs to.
        token: the encoder token in each place, by step of the frame grid.
    """

    encoder: Int[Tensor, " places"]
    token: Int[Tensor, "steps places"]


class Resampler(Standard, ABC):
    """Tokens of one or several encoders to frame tokens on a grid of their own.

    As a `Standard` it standardises the first encoder's tokens; those of others come standardised.

    Attributes:
        encoders: what it reads, the first encoder first.
        group: first encoder's tokens in one step of the frame grid; None when a step is the clip.
        per_step: frame tokens in one step.
        grid: the frame tokens'.
        width: channels of a frame token.
    """

    def __init__(
        self,
        encoders: Sequence[EncoderTokens],
        width: int,
        grid: TimeGrid,
    ) -> None:
        super().__init__(encoders[0].width)
        self.encoders = tuple(encoders)
        self.width = width
        self.grid = grid
        first = encoders[0].grid
        steps = 0 if grid.whole_clip else round(grid.equal_step / first.equal_step)
        self.group = None if grid.whole_clip else steps * first.per_step
        self.per_step = grid.per_step

    @property
    def local(self) -> bool:
        """Whether the frame tokens of a step read that step's sound alone."""
        return self.group is not None

    @property
    def attentions(self) -> tuple[nn.Module, ...]:
        """The cross-attentions in which frame tokens read encoder tokens, in order."""
        return ()

    def reads(self, tokens: Sequence[int]) -> tuple[Reads, ...]:
        """What the keys of each of `attentions` are, for a clip of `tokens` of each encoder."""
        return ()

    def steps(self, tokens: int) -> int:
        """Steps of the frame grid of a clip with `tokens` tokens of the first encoder."""
        return 1 if self.group is None else -(-tokens // self.group)

    def tokens(self, encoder_tokens: int) -> int:
        """Frame tokens of a clip with `encoder_tokens` tokens of the first encoder."""
        return self.per_step * self.steps(encoder_tokens)

    @abstractmethod
    def forward(
        self,
        states: Float[Tensor, "clips tokens width"],
        lengths: Int[Tensor, " clips"],
        others: Sequence[EncoderOutput] = (),
    ) -> Float[Tensor, "clips frames resampled"]:
        """Frame tokens of clips; zeros past a clip's end.

        Args:
            states: of the first encoder, as it gave them.
            lengths: of these, in tokens.
            others: of the other encoders, standardised.
        """

    def stretches(self, steps: int) -> Float[Tensor, "steps 2"]:
        """First and last second of each step; float64."""
        spans = self.grid.spans(steps * self.per_step)[:: self.per_step]
        return torch.from_numpy(spans)

    def real_frames(
        self, lengths: Int[Tensor, " clips"], steps: int
    ) -> Bool[Tensor, "clips frames"]:
        """Which of a batch's frame tokens belong to their clips."""
        if self.group is None:
            return lengths.new_ones(len(lengths), self.per_step, dtype=torch.bool)
        own = (lengths + self.group - 1) // self.group * self.per_step
        return length_mask(own, steps * self.per_step)


def grid_of_steps(encoder: EncoderTokens, seconds: float, per_step: int, what: str) -> TimeGrid:
    """The grid with a step every `seconds`, so many of the first encoder's steps.

    Raises `PalscopeError` when they are no whole number of them: the sound of one step could not be
    told from that of the next in whole tokens.
    """
    step = encoder.grid.equal_step
    count = seconds / step
    if not (math.isfinite(count) and round(count) >= 1 and abs(count - round(count)) < 1e-6):
        raise PalscopeError(
            f"{what} is {seconds:g} s, but the first encoder has a step every {step:g} s; give a "
            "multiple of that."
        )
    # Of the encoder's own steps, so that steps and tokens end together to the last bit.
    return TimeGrid(step * round(count), per_step)

"""Regions of time: which tokens of an encoder lie in each of many stretches of the clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope.audio._timegrid import TimeGrid, steps_within


@dataclass(frozen=True)
class Regions:
    """The tokens of each stretch, in order of time, every stretch given as many places.

    Attributes:
        index: the token in each place; any token where `inside` is False.
        inside: whether the place holds a token of the stretch.
        seconds: of the stretch, that the place's token stands for; 0 where it holds none. All alike
            for tokens of the whole clip.
    """

    index: Int[Tensor, "stretches places"]
    inside: Bool[Tensor, "stretches places"]
    seconds: Float[Tensor, "stretches places"]

    def of_clips(self, lengths: Int[Tensor, " clips"]) -> Bool[Tensor, "clips stretches places"]:
        """Which places hold a token of a clip with `lengths` tokens: padding is in no stretch."""
        return self.inside & (self.index < lengths[:, None, None])


def find_regions(
    grid: TimeGrid,
    stretches: Float[Tensor, "stretches 2"],
    tokens: int,
    device: torch.device | None = None,
) -> Regions:
    """The tokens, of `tokens` on `grid`, that overlap each of `stretches` (first, last second).

    A token of the whole clip lies in every stretch.
    """
    at = torch.arange(grid.per_step)[None].expand(len(stretches), -1)
    inside = at < tokens
    seconds = inside.double()
    if not grid.whole_clip:
        step = grid.equal_step
        starts, ends = stretches.double().unbind(1)
        found = steps_within(grid.edges(tokens), starts.numpy(), ends.numpy())
        first, last = (torch.from_numpy(steps) * grid.per_step for steps in found)
        ends = ends.clamp(max=step * -(-tokens // grid.per_step))
        at = first[:, None] + torch.arange(max(1, int((last - first).max())))
        inside = (at < last[:, None]) & (at < tokens)
        number = (at // grid.per_step).double()
        begin = torch.maximum(number * step, starts[:, None])
        seconds = torch.minimum((number + 1) * step, ends[:, None]) - begin
    at, seconds = torch.where(inside, at, 0), torch.where(inside, seconds, 0.0)
    return Regions(at.to(device), inside.to(device), seconds.float().to(device))

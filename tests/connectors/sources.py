"""Tokens of encoders with every kind of grid, and random states on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from palscope._connectors import Resampler
from palscope._connectors.features import Standard
from palscope.audio._timegrid import TimeGrid
from palscope.encoders import EncoderOutput
from palscope.encoders._base import EncoderTokens

FINE = EncoderTokens(6, TimeGrid(0.02))
"""A token every 20 ms, as Whisper's."""
PATCHES = EncoderTokens(5, TimeGrid(0.16, per_step=4))
"""Four bands of frequency every 160 ms, as SSLAM's eight."""
COARSE = EncoderTokens(4, TimeGrid(0.3125, per_step=2))
"""Steps that divide no other's, as CLAP's."""
WHOLE = EncoderTokens(3, TimeGrid(math.inf))
"""One token of the whole clip."""


def outputs(
    sources: Sequence[EncoderTokens], seconds: Sequence[float], seed: int = 0
) -> list[EncoderOutput]:
    """States of clips of `seconds` from each encoder, and their lengths; padding is NaN."""
    generator = torch.Generator().manual_seed(seed)
    found: list[EncoderOutput] = []
    for source in sources:
        lengths = [source.grid.tokens(each) for each in seconds]
        states = torch.randn(len(seconds), max(lengths), source.width, generator=generator)
        for row, length in zip(states, lengths, strict=True):
            row[length:] = torch.nan
        found.append(EncoderOutput(states, torch.tensor(lengths)))
    return found


def alone(batch: Sequence[EncoderOutput], clip: int) -> list[EncoderOutput]:
    """One clip of a batch, without padding."""
    return [
        EncoderOutput(states[clip : clip + 1, : lengths[clip]], lengths[clip : clip + 1])
        for states, lengths in batch
    ]


def resample(resampler: Resampler, batch: Sequence[EncoderOutput]) -> torch.Tensor:
    """Frame tokens of a batch, every encoder's states standardised by nothing."""
    (states, lengths), *rest = batch
    others = [EncoderOutput(Standard(each.shape[2])(each, counts), counts) for each, counts in rest]
    return resampler(states, lengths, others)

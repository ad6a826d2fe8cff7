"""Towers that hear 30 s at a time, as Whisper's does: Qwen2-Audio's, the Flamingos', Voxtral's."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._published.family import PublishedFamily
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures
from palscope.encoders._whisper import WhisperEncoderConfig, whisper_components

WINDOW = 3000
"""Feature frames that a tower hears at once."""


class WhisperTowerFamily(PublishedFamily):
    """A class whose tower is Whisper's encoder, at `tower_path` of the published model."""

    tower_path = "model.audio_tower"
    floor_db = WhisperEncoderConfig.floor_db
    projector = "projector"
    projector_path = "model.multi_modal_projector"
    windows_alone: ClassVar[bool] = False
    """Whether the features of a window know nothing of the clip's other windows.

    Whisper's features end a fixed distance below their loudest bin: that of the clip, or of 30 s.
    """

    def columns(self, frames: int) -> int:
        """Whole windows."""
        return windows(frames) * WINDOW

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features, filled with silence up to whole windows before they are computed."""
        window = WINDOW * extractor.hop_length
        length = window if self.windows_alone else len(samples)
        made = extractor(
            [samples[first : first + length] for first in range(0, len(samples), length)],
            sampling_rate=self.sample_rate,
            padding=True,
            truncation=False,
            pad_to_multiple_of=window,
            return_tensors="pt",
        )
        return ClipFeatures(
            torch.cat(list(made["input_features"]), dim=1),
            math.ceil(len(samples) / extractor.hop_length),
        )

    def components(self) -> dict[str, Component]:
        """The tower's, by Whisper's names, and the projector."""
        tower = {
            name: Component(part.path.replace("model", self.tower_path, 1), part.each, part.parts)
            for name, part in whisper_components().items()
        }
        return {**tower, self.projector: Component(self.projector_path)}

    def tower_layers(self) -> tuple[Block, ...]:
        """All of the tower's, a token each 20 ms."""
        count = self.config.audio_config.num_hidden_layers
        return tuple(Block(f"blocks.{i}", TimeGrid(0.02)) for i in range(count))


def windows(frames: int) -> int:
    """How many windows hear a clip of so many feature frames."""
    return max(1, math.ceil(frames / WINDOW))


def windowed(
    features: Float[Tensor, "bins columns"], frames: int, last: int
) -> tuple[Float[Tensor, "windows bins 3000"], Int[Tensor, "windows 3000"]]:
    """The windows of a clip of `frames`, up to number `last`, and where in them the clip is."""
    mask = (torch.arange(features.shape[1], device=features.device) < frames).int()
    cut = features.unflatten(1, (-1, WINDOW)).transpose(0, 1)
    return cut[: last + 1], mask.unflatten(0, (-1, WINDOW))[: last + 1]

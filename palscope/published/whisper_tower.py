"""Towers of Whisper's shape, which hear 30 s at a time: Qwen2-Audio, the Flamingos, Voxtral."""

from __future__ import annotations

import math
from typing import Any

from palscope.audio.timegrid import TimeGrid
from palscope.encoders import Component
from palscope.encoders.base import ClipFeatures, Samples
from palscope.encoders.whisper import WhisperEncoderConfig, whisper_components
from palscope.published.family import PublishedFamily, TowerLayer

WINDOW = 3000
"""Feature frames that a tower hears at once."""


class WhisperTowerFamily(PublishedFamily):
    """A class whose tower is Whisper's encoder, at `tower_path` of the published model."""

    tower_path = "model.audio_tower"
    floor_db = WhisperEncoderConfig.floor_db
    projector = "projector"
    projector_path = "model.multi_modal_projector"

    def columns(self, frames: int) -> int:
        """Whole windows."""
        return windows(frames) * WINDOW

    def hear(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features, filled with silence up to whole windows before they are computed."""
        made = extractor(
            samples,
            sampling_rate=self.sample_rate,
            padding=True,
            truncation=False,
            pad_to_multiple_of=WINDOW * extractor.hop_length,
            return_tensors="pt",
        )
        return ClipFeatures(
            made["input_features"][0], math.ceil(len(samples) / extractor.hop_length)
        )

    def components(self) -> dict[str, Component]:
        """The tower's, by Whisper's names, and the projector."""
        tower = {
            name: Component(part.path.replace("model", self.tower_path, 1), part.each, part.parts)
            for name, part in whisper_components().items()
        }
        return {**tower, self.projector: Component(self.projector_path)}

    def tower_layers(self) -> tuple[TowerLayer, ...]:
        """All of the tower's, a token each 20 ms."""
        count = self.config.audio_config.num_hidden_layers
        return tuple(TowerLayer(f"blocks.{i}", TimeGrid(0.02)) for i in range(count))


def windows(frames: int) -> int:
    """How many windows hear a clip of so many feature frames."""
    return max(1, math.ceil(frames / WINDOW))

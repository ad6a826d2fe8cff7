"""Qwen2.5-Omni's thinker (arXiv 2503.20215): a tower of windows of 2 s, and Qwen2.5."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._published.family import PublishedFamily
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders import Block, Component
from palscope.encoders._config import ClipFeatures
from palscope.encoders._whisper import whisper_components


class OmniThinkerFamily(PublishedFamily):
    """A thinker: the part of an Omni model that hears, sees and writes; the rest of it talks.

    A checkpoint of the whole opens its thinker alone. Its tower cuts a clip into chunks, which
    follow one another in tensors without a batch dimension. Sound takes positions as text does:
    the three axes of its rotary positions differ only where there are pictures.
    """

    unread = ("talker.", "token2wav.", "code2wav.")
    floor_db = 40.0  # Whisper's extractor

    def __init__(self, config: Any) -> None:
        super().__init__(getattr(config, "thinker_config", config))

    def audio_part(self, model: Any) -> Any:
        """The thinker."""
        return getattr(model, "thinker", model)

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """The class's own method, of this clip alone."""
        mask = torch.ones(1, frames, dtype=torch.long, device=features.device)
        return model.get_audio_features(features[None], mask).last_hidden_state

    def tower_layers(self) -> tuple[Block, ...]:
        """All of the tower's."""
        count = self.config.audio_config.num_hidden_layers
        return tuple(Block(f"blocks.{i}", self.layer_grid) for i in range(count))

    @property
    def layer_grid(self) -> TimeGrid:
        """Of the tokens in the tower's layers."""
        return self.grid


class Qwen25Omni(OmniThinkerFamily):
    """Windows of 2 s, which neither convolutions nor attention cross.

    The class averages pairs of the tower's tokens before its last norm; a token at a clip's end
    that is left without a partner is dropped.
    """

    model_types = ("qwen2_5_omni_thinker", "qwen2_5_omni")
    checkpoints = (
        ("Qwen/Qwen2.5-Omni-7B", "10.7 B with its talker"),
        ("Qwen/Qwen2.5-Omni-3B", "5.5 B with its talker"),
    )
    architecture = "Qwen2_5OmniThinkerForConditionalGeneration"
    place = "<|AUDIO|>"
    projector = "projector"
    longest = 300.0

    @property
    def grid(self) -> TimeGrid:
        """Four feature frames a token, of which a clip must have the third."""
        return TimeGrid(0.04, centres=(0.02,))

    @property
    def layer_grid(self) -> TimeGrid:
        """Before they are averaged."""
        return TimeGrid(0.02)

    def tokens(self, frames: int) -> int:
        """Pairs of whole pairs."""
        return math.ceil(frames / 2) // 2

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features of the clip and the silence behind it, cut to the clip.

        The published processor fills 300 s with silence. Three frames of it are enough: those
        farther from the clip hear none of it, and change neither its features nor their maximum.
        """
        frames = math.ceil(len(samples) / extractor.hop_length)
        made = extractor(
            samples,
            sampling_rate=self.sample_rate,
            padding="max_length",
            max_length=(frames + 3) * extractor.hop_length,
            truncation=False,
            return_tensors="pt",
        )
        return ClipFeatures(made["input_features"][0, :, :frames], frames)

    def components(self) -> dict[str, Component]:
        """The tower's, by Whisper's names, and the projector."""
        own = {"ln_final": "ln_post"}
        return {
            **{
                name: Component(
                    f"model.audio_tower.{own.get(name, part.path.removeprefix('model.'))}",
                    part.each,
                    part.parts,
                )
                for name, part in whisper_components().items()
            },
            self.projector: Component("model.audio_tower.proj"),
        }

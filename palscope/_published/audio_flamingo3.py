"""Audio Flamingo 3 (arXiv 2507.08128): Whisper's encoder, pooled to 40 ms, and Qwen2.5."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from palscope._published.whisper_tower import WhisperTowerFamily, windowed
from palscope.audio._timegrid import TimeGrid


class AudioFlamingo3(WhisperTowerFamily):
    """Windows of 30 s, each heard by itself; padding is masked.

    The tower's norm stands behind its pooling.
    """

    model_types = ("audioflamingo3",)
    checkpoints = (("nvidia/audio-flamingo-3-hf", "8.3 B"),)
    architecture = "AudioFlamingo3ForConditionalGeneration"
    place = "<sound>"
    longest = 600.0
    windows_alone = True

    @property
    def grid(self) -> TimeGrid:
        """Four feature frames a token, 750 tokens a window."""
        return TimeGrid(0.04)

    def tokens(self, frames: int) -> int:
        """Up to 20 ms at the end have no token."""
        return (frames + 1) // 4

    def chat(self, template: Any, question: str, clips: int, system: str | None) -> str:
        """The published template knows one clip a turn; more stand beside it."""
        prompt = super().chat(template, question, min(clips, 1), system)
        return prompt.replace(self.place, self.place * clips) if clips else prompt

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """By the class's own method."""
        windows, mask = windowed(features, frames, (self.tokens(frames) - 1) // 750)
        return model.get_audio_features(windows, mask, return_dict=True).pooler_output

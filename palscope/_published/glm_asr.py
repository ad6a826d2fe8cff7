"""GLM-ASR: Whisper's convolutions, a tower with rotary positions, tokens of 80 ms, a Llama."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from palscope._published.layers import encoder_layer
from palscope._published.whisper_tower import WhisperTowerFamily, windowed
from palscope.audio._timegrid import TimeGrid
from palscope.encoders import Component


class GlmAsr(WhisperTowerFamily):
    """Windows of 30 s, each heard by itself, the silence that fills the last one included."""

    model_types = ("glmasr",)
    checkpoints = (("zai-org/GLM-ASR-Nano-2512", "1.5 B"),)
    architecture = "GlmAsrForConditionalGeneration"
    place = "<|pad|>"  # of audio: what pads a prompt is the end of text
    longest = 630.0  # whole windows of the processor's 655 s
    windows_alone = True

    @property
    def grid(self) -> TimeGrid:
        """Eight feature frames a token, 375 tokens a window."""
        return TimeGrid(0.08)

    def tokens(self, frames: int) -> int:
        """Up to 60 ms at the end have no token."""
        return (frames + 1) // 2 // 4

    def components(self) -> dict[str, Component]:
        """As Whisper's, with the names of a Llama's layers inside."""
        return {
            "conv1": Component(f"{self.tower_path}.conv1"),
            "conv2": Component(f"{self.tower_path}.conv2"),
            "blocks": Component(f"{self.tower_path}.layers", each=True, parts=encoder_layer()),
            "ln_final": Component(f"{self.tower_path}.norm"),
            self.projector: Component(self.projector_path),
        }

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """By the class's own method."""
        windows, mask = windowed(features, frames, (self.tokens(frames) - 1) // 375)
        return model.get_audio_features(windows, mask, return_dict=True).pooler_output

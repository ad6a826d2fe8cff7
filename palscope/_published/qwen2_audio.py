"""Qwen2-Audio (arXiv 2407.10759): Whisper's encoder, pooled to 40 ms, and Qwen-7B."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Qwen2AudioProcessor
from transformers.masking_utils import create_bidirectional_mask

from palscope._published.whisper_tower import WhisperTowerFamily
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._base import length_mask


class Qwen2Audio(WhisperTowerFamily):
    """One window of 30 s; padding is masked. The tower's norm stands behind its pooling."""

    model_types = ("qwen2_audio",)
    checkpoints = (("Qwen/Qwen2-Audio-7B-Instruct", "8.4 B"),)
    architecture = "Qwen2AudioForConditionalGeneration"
    place = "<|AUDIO|>"
    longest = 30.0

    @property
    def grid(self) -> TimeGrid:
        """Four feature frames a token."""
        return TimeGrid(0.04)

    def tokens(self, frames: int) -> int:
        """Up to 20 ms at the end have no token."""
        return (frames + 1) // 4

    def default_template(self, tokenizer: Any, extractor: Any) -> str:
        """The processor's: the published repository has none."""
        made: Any = Qwen2AudioProcessor(extractor, tokenizer)
        return made.chat_template

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """As `Qwen2AudioModel.forward` does it, which has no method for it."""
        tower = model.model.audio_tower
        real = length_mask(torch.tensor([(frames + 1) // 2]), features.shape[-1] // 2)
        like = features.new_zeros(1, real.shape[1], 1)
        mask = create_bidirectional_mask(tower.config, like, real.to(features.device))
        states = tower(features[None], attention_mask=mask).last_hidden_state
        return model.model.multi_modal_projector(states)[0, : self.tokens(frames)]

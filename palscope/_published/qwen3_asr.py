"""Qwen3-ASR: Qwen3-Omni's tower of chunks of 1 s, a projector apart, and Qwen3."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._published.qwen3_omni import CHUNK, Qwen3Omni
from palscope.audio._waveform import Samples
from palscope.encoders import Component
from palscope.encoders._config import ClipFeatures


class Qwen3ASR(Qwen3Omni):
    """Qwen3-Omni's chunks and windows; half a second at least. A question is its system message.

    Its chat template drops what a user writes beside the clip: words that transcription is to know
    of are said before it. Clips of less than half a second are heard with silence behind them,
    which has tokens.
    """

    model_types = ("qwen3_asr",)
    checkpoints = (("Qwen/Qwen3-ASR-0.6B-hf", "0.9 B"), ("Qwen/Qwen3-ASR-1.7B-hf", "2 B"))
    architecture = "Qwen3ASRForConditionalGeneration"
    projector = "projector"
    unread = ()

    def columns(self, frames: int) -> int:
        """Whole chunks; the last one is filled with zeros."""
        return math.ceil(frames / CHUNK) * CHUNK

    def extract(self, extractor: Any, samples: Samples) -> ClipFeatures:
        """Log-mel features as of a clip alone, whose end is mirrored."""
        made = extractor(
            samples,
            sampling_rate=self.sample_rate,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return ClipFeatures(made["input_features"][0], int(made["attention_mask"].sum()))

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """By the class's own method."""
        heard = (torch.arange(features.shape[1], device=features.device) < frames).long()
        return model.get_audio_features(features[None], heard[None], return_dict=True).pooler_output

    def components(self) -> dict[str, Component]:
        """Qwen3-Omni's, but for the projector, which is a module of its own here."""
        parts = super().components()
        del parts["proj1"], parts["proj2"]
        return {**parts, self.projector: Component("model.multi_modal_projector")}

    def chat(self, template: Any, question: str, clips: int, system: str | None) -> str:
        """The system message, the question at its end, and then the clips."""
        said = question if system is None else f"{system}\n{question}"
        *sounds, text = self.content(said, clips)
        return template(
            [{"role": "system", "content": [text]}, {"role": "user", "content": sounds}]
        )

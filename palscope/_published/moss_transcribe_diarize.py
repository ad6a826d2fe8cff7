"""MOSS-Transcribe-Diarize (arXiv 2601.01554): Whisper's encoder, seconds written between tokens."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor

from palscope._published.whisper_tower import WhisperTowerFamily, windowed, windows
from palscope.audio._timegrid import TimeGrid

_MARKED = 25
"""Audio tokens between two marks: those of 2 s."""


class MossTranscribeDiarize(WhisperTowerFamily):
    """Windows of 30 s, each heard by itself, with its silence; every 2 s a clip's second is text.

    These marks ("2", "4", …) stand between audio tokens, are text, and take positions. Their
    distance is the published processor's; it is no setting of the model.
    """

    model_types = ("moss_transcribe_diarize",)
    checkpoints = (("hf-audio/MOSS-Transcribe-Diarize-HF", "0.9 B"),)
    architecture = "MossTranscribeDiarizeForConditionalGeneration"
    place = "<|audio_pad|>"
    windows_alone = True
    least_transformers = "5.20"

    @property
    def grid(self) -> TimeGrid:
        """Eight feature frames a token, 375 tokens a window."""
        return TimeGrid(0.08)

    def tokens(self, frames: int) -> int:
        """The last may hear a single frame."""
        return math.ceil(frames / 8)

    def written(self, tokens: int) -> str:
        """Places, and behind every 25 of them how many seconds have passed."""
        marks, rest = divmod(tokens, _MARKED)
        marked = "".join(f"{self.place * _MARKED}{2 * mark}" for mark in range(1, marks + 1))
        return marked + self.place * rest

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """By the class's own method, which asks for a mask of samples and does not read it."""
        cut, mask = windowed(features, frames, windows(frames) - 1)
        return model.get_audio_features(
            cut, mask, padding_mask=None, return_dict=True
        ).pooler_output

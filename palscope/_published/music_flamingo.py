"""Music Flamingo (arXiv 2511.10289): Audio Flamingo 3, whose audio tokens are turned by time."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._published.audio_flamingo3 import AudioFlamingo3
from palscope._published.whisper_tower import windowed
from palscope.errors import CheckpointError


class MusicFlamingo(AudioFlamingo3):
    """Between tower and projector a rotary embedding tells a token its second in the clip."""

    model_types = ("musicflamingo",)
    checkpoints = (("nvidia/music-flamingo-2601-hf", "8 B"),)
    architecture = "MusicFlamingoForConditionalGeneration"
    longest = 1200.0
    # Before, a config that leaves out which share of the width turns by time meant all of it.
    least_transformers = "5.20"

    def written(self, tokens: int) -> str:
        """Between a mark of its beginning and one of its end."""
        return f"<|sound_bos|>{super().written(tokens)}<|sound_eos|>"

    def encode(
        self, model: Any, features: Float[Tensor, "bins columns"], frames: int
    ) -> Float[Tensor, "tokens d_model"]:
        """By the class's own method, which counts a clip's windows by the run of its places.

        It cannot do with a window without tokens (one of 20 ms or less), so `windowed` leaves such
        a window out.

        Raises:
            CheckpointError: the time's angles are in half precision.
        """
        if torch.finfo(model.model.pos_emb.inv_freq.dtype).bits < 32:
            raise CheckpointError(
                "this Music Flamingo was cast to half precision after it was loaded, and the "
                "angles of its time embedding with it, which changes what it hears. Load it with "
                "dtype=."
            )
        tokens = self.tokens(frames)
        windows, mask = windowed(features, frames, (tokens - 1) // 750)
        places = torch.full((1, tokens), self.audio_token_id, device=features.device)
        return model.get_audio_features(windows, mask, places, return_dict=True).pooler_output

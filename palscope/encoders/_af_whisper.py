"""AF-Whisper, the audio tower of Audio Flamingo 3: Whisper's encoder, averaged in twos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AudioFlamingo3Encoder, AudioFlamingo3EncoderConfig, WhisperFeatureExtractor
from transformers.masking_utils import create_bidirectional_mask

from palscope.audio._mel import mel_bin_hz
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples, check_samples
from palscope.encoders._base import (
    WindowedEncoder,
    length_mask,
)
from palscope.encoders._config import ClipFeatures, EncoderConfig
from palscope.encoders._tower import Block, Component
from palscope.encoders._whisper import whisper_components

# Two mel frames of 10 ms for the convolutions' token, two of those for a token.
_FRAMES_PER_STATE, _FRAMES_PER_TOKEN = 2, 4
SIZES = (
    "num_mel_bins",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_size",
    "activation_function",
    "max_source_positions",
)
"""The fields of `AFWhisperConfig` that `transformers` knows too, under the same names."""


@dataclass(frozen=True)
class AFWhisperConfig(EncoderConfig):
    """Sizes under the names of `transformers.AudioFlamingo3EncoderConfig`."""

    kind: ClassVar[str] = "af-whisper"
    floor_db: ClassVar[float | None] = 40.0  # (log10(power) + 4) / 4: one unit is 4 decades

    num_mel_bins: int = 128
    num_hidden_layers: int = 32
    num_attention_heads: int = 20
    intermediate_size: int = 5120
    hidden_size: int = 1280
    activation_function: str = "gelu"
    max_source_positions: int = 1500

    @property
    def window(self) -> int:
        """Mel frames of a window."""
        return self.max_source_positions * _FRAMES_PER_STATE

    def features(self, samples: Samples) -> ClipFeatures:
        """Whisper's log-mel of each window of 30 s, filled up with silence as published."""
        samples = check_samples(samples, "the samples given to AF-Whisper")
        extractor = cast(Any, WhisperFeatureExtractor(feature_size=self.num_mel_bins))
        window = self.window * extractor.hop_length
        pieces = [
            extractor(
                samples[at : at + window],
                sampling_rate=self.sample_rate,
                padding="max_length",
                max_length=window,
                return_tensors="pt",
            )["input_features"][0]
            for at in range(0, len(samples), window)
        ]
        return ClipFeatures(torch.cat(pieces, dim=1), -(-len(samples) // extractor.hop_length))

    def bin_hz(self) -> Float[np.ndarray, " mel"]:
        """Centres of the mel bins."""
        return mel_bin_hz(self.num_mel_bins, self.sample_rate)

    def transformers_config(self) -> AudioFlamingo3EncoderConfig:
        """Return the same sizes for `transformers`."""
        return AudioFlamingo3EncoderConfig(**{name: getattr(self, name) for name in SIZES})


class AFWhisperEncoder(WindowedEncoder[AFWhisperConfig]):
    """AF-Whisper of any size. `model` is that of `transformers`, and keeps its names.

    A clip stands in a window of 30 s of silence, as published: the convolutions hear the silence
    behind its end, attention does not. Where a clip ends in the middle of a token, the published
    model drops that token; here it averages what the clip has of it.
    """

    def __init__(self, config: AFWhisperConfig) -> None:
        super().__init__(config)
        self.model = AudioFlamingo3Encoder(config.transformers_config())

    @property
    def width(self) -> int:
        """`hidden_size`."""
        return self.config.hidden_size

    @property
    def grid(self) -> TimeGrid:
        """40 ms a token."""
        return TimeGrid(0.04)

    @property
    def window(self) -> int:
        """Mel frames encoded at once (30 s)."""
        return self.config.window

    @property
    def bins(self) -> int:
        """Mel bins."""
        return self.config.num_mel_bins

    def columns(self, frames: int) -> int:
        """A whole window's, however many frames are the clip's."""
        return self.window

    def encode_window(
        self, features: Float[Tensor, "clips mel columns"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """At most one window of sound, each clip by itself."""
        model = cast(Any, self.model)
        hidden = nn.functional.gelu(model.conv1(features))
        hidden = nn.functional.gelu(model.conv2(hidden)).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight
        states = (lengths + _FRAMES_PER_STATE - 1) // _FRAMES_PER_STATE
        inside = length_mask(states, hidden.shape[1])
        mask = create_bidirectional_mask(model.config, hidden, inside)
        for layer in model.layers:
            hidden = layer(hidden, mask)
        # Tokens that lie within the clip are the published averages.
        hidden = hidden.masked_fill(~inside[..., None], 0)
        counts = inside.view(len(inside), -1, 2).sum(-1).clamp(min=1)
        pooled = hidden.view(len(hidden), -1, 2, hidden.shape[-1]).sum(2) / counts[..., None]
        return model.layer_norm(pooled)

    def components(self) -> dict[str, Component]:
        """Convolutions, layers with their attention and MLP, final norm."""
        return whisper_components()

    @property
    def mel_hook(self) -> str:
        """What the first convolution reads."""
        return "conv1.hook_in"

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers: tokens of 20 ms, before they are averaged."""
        order = torch.arange(self.config.max_source_positions)
        grid = TimeGrid(0.02)
        return tuple(
            Block(f"blocks.{i}", grid, order) for i in range(self.config.num_hidden_layers)
        )

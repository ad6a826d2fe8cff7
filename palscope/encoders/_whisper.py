"""Whisper's encoder, run on clips of their true length instead of 30 padded seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder as HFWhisperEncoder

from palscope.audio._mel import log_mel, mel_bin_hz
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders._base import (
    WindowedEncoder,
    check_layers,
    hidden_states,
    length_mask,
)
from palscope.encoders._config import ClipFeatures, EncoderConfig
from palscope.encoders._tower import Block, Component

# 10 ms a mel frame, and the second convolution halves their number.
_SECONDS_PER_TOKEN = 0.02
_FRAMES_PER_TOKEN = 2
#: The fields of `WhisperEncoderConfig` that `transformers` knows too, under the same names.
SIZES = (
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "num_mel_bins",
    "max_source_positions",
    "activation_function",
    "scale_embedding",
)


@dataclass(frozen=True)
class WhisperEncoderConfig(EncoderConfig):
    """Sizes under the names of `transformers.WhisperConfig` (defaults: tiny.en), and two choices.

    `layers`: the hidden states, side by side, that make up a token's state: 0 enters the first
    layer, `i` leaves layer `i`, and the last one passes the final norm, as in `transformers`.
    Layers above the highest are not run.

    `pad_to_window`: encode every clip in 30 s of silence, as Whisper was trained, and cut its
    tokens out afterwards. Slower; the silence takes part in attention.
    """

    kind: ClassVar[str] = "whisper"
    floor_db: ClassVar[float | None] = 40.0  # (log10(power) + 4) / 4: one unit is 4 decades

    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    activation_function: str = "gelu"
    scale_embedding: bool = False
    layers: tuple[int, ...] = (4,)
    pad_to_window: bool = False

    def __post_init__(self) -> None:
        layers = check_layers(self.kind, self.layers, self.encoder_layers)
        object.__setattr__(self, "layers", layers)

    def feature_extractor(self) -> WhisperFeatureExtractor:
        """Whisper's log-mel extractor with this number of bins."""
        return WhisperFeatureExtractor(feature_size=self.num_mel_bins)

    def features(self, samples: Samples) -> ClipFeatures:
        """Whisper's log-mel (`palscope.audio.log_mel`)."""
        mel = log_mel(samples, self.feature_extractor())
        return ClipFeatures(mel, mel.shape[1])

    def bin_hz(self) -> Float[np.ndarray, " mel"]:
        """Centres of the mel bins."""
        return mel_bin_hz(self.num_mel_bins, self.sample_rate)

    def transformers_config(self) -> WhisperConfig:
        """Return the same sizes for `transformers`."""
        return WhisperConfig(**{name: getattr(self, name) for name in SIZES})


class WhisperEncoder(WindowedEncoder[WhisperEncoderConfig]):
    """Whisper's encoder of any size. `model` is that of `transformers`, and keeps its names.

    A clip is encoded as long as it is: positions are cut to its length, and neither other clips
    of the batch nor what pads it is ever read. Sound longer than the window (30 s) is encoded in
    windows of that length, one after the other, each on its own.

    Token `i` is centred on second `0.02 * i` (its receptive field before attention: 65 ms of
    samples), so it lies 10 ms earlier than the middle of its span on the grid.
    """

    def __init__(self, config: WhisperEncoderConfig) -> None:
        super().__init__(config)
        self.model = HFWhisperEncoder(config.transformers_config())

    @property
    def width(self) -> int:
        """`d_model` for each of the chosen layers."""
        return self.config.d_model * len(self.config.layers)

    @property
    def grid(self) -> TimeGrid:
        """20 ms a token."""
        return TimeGrid(_SECONDS_PER_TOKEN)

    @property
    def window(self) -> int:
        """Mel frames of the longest sound encoded at once (30 s)."""
        return self.config.max_source_positions * _FRAMES_PER_TOKEN

    @property
    def bins(self) -> int:
        """Mel bins."""
        return self.config.num_mel_bins

    def feature_extractor(self) -> WhisperFeatureExtractor:
        """Whisper's log-mel extractor with this encoder's number of bins."""
        return self.config.feature_extractor()

    def encode_window(
        self, features: Float[Tensor, "clips mel frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """At most one window of sound, each clip by itself."""
        if self.config.pad_to_window:
            features = self._silence_to_window(features, lengths)
            return self._run(features, torch.full_like(lengths, self.window))
        return self._run(features, lengths)

    def components(self) -> dict[str, Component]:
        """Convolutions, layers with their attention and MLP, final norm."""
        return whisper_components()

    @property
    def mel_hook(self) -> str:
        """What the first convolution reads."""
        return "conv1.hook_in"

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers, all on the grid of the output."""
        order = torch.arange(self.tokens(self.window))
        return tuple(
            Block(f"blocks.{i}", self.grid, order) for i in range(self.config.encoder_layers)
        )

    def _run(
        self, features: Float[Tensor, "clips mel frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """Convolutions, positions and layers, blind to everything past `lengths`."""
        model = cast(Any, self.model)
        # A convolution pads a single clip with zeros, so the next clip's end must be zero too,
        # before each of the two.
        frames = length_mask(lengths, features.shape[-1])
        hidden = features.masked_fill(~frames[:, None], 0)
        hidden = nn.functional.gelu(model.conv1(hidden)).masked_fill(~frames[:, None], 0)
        hidden = nn.functional.gelu(model.conv2(hidden)).transpose(1, 2)

        tokens = length_mask(self.token_lengths(lengths), hidden.shape[1])
        hidden = hidden + model.embed_positions(torch.arange(hidden.shape[1], device=hidden.device))
        mask = create_bidirectional_mask(model.config, hidden, tokens)  # None if all are heard
        wanted = self.config.layers
        states = hidden_states(hidden, model.layers, wanted, mask, norm=model.layer_norm)
        return torch.cat(states, dim=-1)

    def _silence_to_window(
        self, features: Float[Tensor, "clips mel frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips mel window"]:
        """`features` filled up with what the extractor gives for silence after the clip.

        Exact when a clip ends in 25 ms of silence; else the two frames after its end, which
        would hear its last samples, are silent here.
        """
        inside = length_mask(lengths, features.shape[-1])[:, None]
        loudest = features.masked_fill(~inside, -torch.inf).amax(dim=(1, 2), keepdim=True)
        # (log10 + 4) / 4 of the smallest power, 1e-10, and of 8 decades below the loudest bin.
        silence = (loudest - 2.0).clamp(min=-1.5)
        padded = silence.expand(-1, features.shape[1], self.window).clone()
        padded[..., : features.shape[-1]] = torch.where(inside, features, silence)
        return padded


def whisper_components() -> dict[str, Component]:
    """Convolutions, layers with their attention and MLP, final norm, by Whisper's names."""
    attention = {name: Component(f"{name}_proj") for name in ("q", "k", "v")}
    layer = {
        "ln1": Component("self_attn_layer_norm"),
        "attn": Component("self_attn", parts=attention | {"o": Component("out_proj")}),
        "ln2": Component("final_layer_norm"),
        "mlp_in": Component("fc1"),
        "mlp_out": Component("fc2"),
    }
    return {
        "conv1": Component("model.conv1"),
        "conv2": Component("model.conv2"),
        "blocks": Component("model.layers", each=True, parts=layer),
        "ln_final": Component("model.layer_norm"),
    }

"""Whisper's encoder, run on clips of their true length instead of 30 padded seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder as HFWhisperEncoder

from palscope.audio.timegrid import TimeGrid
from palscope.encoders.base import Encoder, EncoderConfig, EncoderOutput
from palscope.errors import AudioError, CheckpointError

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
        object.__setattr__(self, "layers", tuple(self.layers))  # JSON has lists only
        wrong = [layer for layer in self.layers if not 0 <= layer <= self.encoder_layers]
        if wrong or not self.layers or len(set(self.layers)) < len(self.layers):
            raise CheckpointError(
                f"layers={self.layers} of a Whisper encoder with {self.encoder_layers} layers; "
                f"expected one or more different numbers from 0 to {self.encoder_layers}."
            )

    def transformers_config(self) -> WhisperConfig:
        """Return the same sizes for `transformers`."""
        return WhisperConfig(**{name: getattr(self, name) for name in SIZES})


class WhisperEncoder(Encoder):
    """Whisper's encoder of any size. `model` is that of `transformers`, and keeps its names.

    A clip is encoded as long as it is: positions are cut to its length, and neither other clips
    of the batch nor what pads it is ever read. Sound longer than the window (30 s) is encoded in
    windows of that length, one after the other, each on its own.

    Token `i` is centred on second `0.02 * i` (its receptive field before attention: 65 ms of
    samples), so it lies 10 ms earlier than the middle of its span on the grid.
    """

    def __init__(self, config: WhisperEncoderConfig) -> None:
        super().__init__()
        self._config = config
        self.model = HFWhisperEncoder(config.transformers_config())

    @property
    def config(self) -> WhisperEncoderConfig:
        """The settings it was built from."""
        return self._config

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

    def tokens(self, frames: int) -> int:
        """One token for every two mel frames; the last may cover one."""
        return -(-frames // _FRAMES_PER_TOKEN)

    def feature_extractor(self) -> WhisperFeatureExtractor:
        """Whisper's log-mel extractor with this encoder's number of bins."""
        return WhisperFeatureExtractor(feature_size=self.config.num_mel_bins)

    def forward(
        self,
        features: Float[Tensor, "clips mel frames"],
        lengths: Int[Tensor, " clips"],
    ) -> EncoderOutput:
        """States of clips of `lengths` mel frames (`palscope.audio.log_mel`), padded at the end.

        Each clip's states are those it has alone, to rounding. Raises `AudioError` when features
        and lengths do not fit together or a clip is empty.
        """
        self._check(features, lengths)
        features = features.to(self.model.conv1.weight.dtype)
        total = self.tokens(int(lengths.max()))
        states = features.new_zeros(len(features), total, self.width)
        # One window at a time bounds the memory by the batch, not by the length of the sound.
        for start in range(0, int(lengths.max()), self.window):
            rows = (lengths > start).nonzero()[:, 0]
            left = (lengths[rows] - start).clamp(max=self.window)
            piece = features[rows, :, start : start + int(left.max())]
            encoded = self._encode_window(piece, left)
            first = start // _FRAMES_PER_TOKEN
            states[rows, first : first + encoded.shape[1]] = encoded
        return EncoderOutput(states, _token_lengths(lengths))

    def _encode_window(
        self, features: Float[Tensor, "clips mel frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """At most one window of sound, each clip by itself; zero past its length."""
        if self.config.pad_to_window:
            features = self._silence_to_window(features, lengths)
            states = self._run(features, torch.full_like(lengths, self.window))
        else:
            states = self._run(features, lengths)
        tokens = _token_lengths(lengths)
        states = states[:, : int(tokens.max())]
        return states.masked_fill(~_within(tokens, states.shape[1])[:, :, None], 0)

    def _run(
        self, features: Float[Tensor, "clips mel frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """Convolutions, positions and layers, blind to everything past `lengths`."""
        model = cast(Any, self.model)
        # A convolution pads a single clip with zeros, so the next clip's end must be zero too,
        # before each of the two.
        frames = _within(lengths, features.shape[-1])
        hidden = features.masked_fill(~frames[:, None], 0)
        hidden = nn.functional.gelu(model.conv1(hidden)).masked_fill(~frames[:, None], 0)
        hidden = nn.functional.gelu(model.conv2(hidden)).transpose(1, 2)

        tokens = _within(_token_lengths(lengths), hidden.shape[1])
        hidden = hidden + model.embed_positions(torch.arange(hidden.shape[1], device=hidden.device))
        mask = create_bidirectional_mask(model.config, hidden, tokens)  # None if all are heard
        chosen = {0: hidden}
        for number, layer in enumerate(model.layers[: max(self.config.layers)], start=1):
            hidden = layer(hidden, mask)
            chosen[number] = hidden
        if max(self.config.layers) == self.config.encoder_layers:
            chosen[self.config.encoder_layers] = model.layer_norm(hidden)
        return torch.cat([chosen[layer] for layer in self.config.layers], dim=-1)

    def _silence_to_window(
        self, features: Float[Tensor, "clips mel frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips mel frames"]:
        """`features` filled up with what the extractor gives for silence after the clip.

        Exact when a clip ends in 25 ms of silence; else the two frames after its end, which
        would hear its last samples, are silent here.
        """
        inside = _within(lengths, features.shape[-1])[:, None]
        loudest = features.masked_fill(~inside, -torch.inf).amax(dim=(1, 2), keepdim=True)
        # (log10 + 4) / 4 of the smallest power, 1e-10, and of 8 decades below the loudest bin.
        silence = (loudest - 2.0).clamp(min=-1.5)
        padded = silence.expand(-1, features.shape[1], self.window).clone()
        padded[..., : features.shape[-1]] = torch.where(inside, features, silence)
        return padded

    def _check(self, features: Tensor, lengths: Tensor) -> None:
        bins = self.config.num_mel_bins
        if features.ndim != 3 or features.shape[1] != bins or lengths.shape != features.shape[:1]:
            raise AudioError(
                f"Features {tuple(features.shape)} with lengths {tuple(lengths.shape)}; "
                f"expected [clips, {bins} mel bins, frames] and [clips]. "
                "Use the feature extractor of this encoder."
            )
        if int(lengths.min()) < 1 or int(lengths.max()) > features.shape[-1]:
            raise AudioError(
                f"Lengths {lengths.tolist()} in mel frames; "
                f"expected 1 to {features.shape[-1]}, the frames given."
            )


def _token_lengths(lengths: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
    return (lengths + _FRAMES_PER_TOKEN - 1) // _FRAMES_PER_TOKEN


def _within(lengths: Int[Tensor, " clips"], size: int) -> Bool[Tensor, "clips size"]:
    """Tell, for each clip, the places up to its length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]

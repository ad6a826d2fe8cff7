"""The Audio Spectrogram Transformer: overlapping spectrogram patches, every 100 ms and 10 bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import ASTConfig as HFConfig
from transformers import ASTModel

from palscope.audio._fbank import kaldi_hz, windowed_fbank
from palscope.audio._timegrid import SECONDS_PER_FEATURE, TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders._base import (
    WindowedEncoder,
    check_layers,
    filled,
    hidden_states,
)
from palscope.encoders._config import ClipFeatures, EncoderConfig
from palscope.encoders._tower import Block, Component

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "patch_size",
    "frequency_stride",
    "time_stride",
    "max_length",
    "num_mel_bins",
    "layer_norm_eps",
)
"""The fields of `ASTConfig` that `transformers` knows too, under the same names."""


@dataclass(frozen=True)
class ASTConfig(EncoderConfig):
    """Sizes under the names of `transformers.ASTConfig`, and which layers make up a token's state.

    Attributes:
        mean, std: of the log energies over the training set; features are `(x - mean) / (2 std)`.
        layers: as in `WhisperEncoderConfig`; the last one passes the final norm.
    """

    kind: ClassVar[str] = "ast"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    patch_size: int = 16
    frequency_stride: int = 10
    time_stride: int = 10
    max_length: int = 1024
    num_mel_bins: int = 128
    layer_norm_eps: float = 1e-12
    mean: float = -4.2677393
    std: float = 4.5689974
    layers: tuple[int, ...] = (12,)

    def __post_init__(self) -> None:
        layers = check_layers(self.kind, self.layers, self.num_hidden_layers)
        object.__setattr__(self, "layers", layers)

    @property
    def columns(self) -> int:
        """Patches, of different times, in a window."""
        return (self.max_length - self.patch_size) // self.time_stride + 1

    @property
    def rows(self) -> int:
        """Patches, of different frequencies, in a column."""
        return (self.num_mel_bins - self.patch_size) // self.frequency_stride + 1

    @property
    def fill(self) -> float:
        """What a frame without sound holds: log energy 0, normalised."""
        return -self.mean / (2 * self.std)

    def features(self, samples: Samples) -> ClipFeatures:
        """Kaldi's filter banks of each window by itself, normalised."""
        window = self.columns * self.time_stride
        values = windowed_fbank(samples, self.num_mel_bins, window)
        return ClipFeatures((values - self.mean) / (2 * self.std), values.shape[1])

    def bin_hz(self) -> Float[np.ndarray, " bins"]:
        """Centres of the mel bins."""
        return kaldi_hz(np.arange(self.num_mel_bins), self.num_mel_bins)

    def transformers_config(self) -> HFConfig:
        """Return the same sizes for `transformers`."""
        return HFConfig(**{name: getattr(self, name) for name in SIZES})


class ASTEncoder(WindowedEncoder[ASTConfig]):
    """The Audio Spectrogram Transformer of any size. `model` is that of `transformers`.

    Every clip is filled up to windows of `max_length` frames, as published; the filling takes part
    in attention, and its tokens are cut off afterwards. A window holds as much sound as begins a
    patch (10.1 s), so that sound of up to 10.1 s has the published states; the two tokens CLS and
    distillation run along, first in every layer, and are not among the states.

    Patches overlap: a token's own span is that up to the next one (100 ms), its patch hears 60 ms
    more.
    """

    def __init__(self, config: ASTConfig) -> None:
        super().__init__(config)
        self.filled_features = nn.Identity()
        self.model = ASTModel(config.transformers_config())

    @property
    def width(self) -> int:
        """`hidden_size` for each of the chosen layers."""
        return self.config.hidden_size * len(self.config.layers)

    @property
    def grid(self) -> TimeGrid:
        """100 ms a column, with the band of mel bins of each row."""
        config = self.config
        first = np.arange(config.rows + 1) * config.frequency_stride
        first[-1] = first[-2] + config.patch_size  # nothing comes after the last row
        hz = kaldi_hz(first - 0.5, config.num_mel_bins)
        return TimeGrid(config.time_stride * SECONDS_PER_FEATURE, config.rows, tuple(hz.tolist()))

    @property
    def window(self) -> int:
        """Frames encoded at once, of those that begin a patch."""
        return self.config.columns * self.config.time_stride

    @property
    def bins(self) -> int:
        """Mel bins."""
        return self.config.num_mel_bins

    def encode_window(
        self, features: Float[Tensor, "clips bins frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """At most one window of sound, each clip by itself."""
        features = self.filled_features(
            filled(features, lengths, self.config.max_length, self.config.fill)
        )
        model = cast(Any, self.model)
        hidden = model.embeddings(features.transpose(1, 2))
        states = hidden_states(hidden, model.layers, self.config.layers, norm=model.layernorm)
        order = self._order.to(hidden.device)
        return torch.cat([state[:, order] for state in states], dim=-1)

    @property
    def _order(self) -> Int[Tensor, " tokens"]:
        """Places of a window's tokens, time first: the model has them frequency first."""
        rows, columns = self.config.rows, self.config.columns
        places = torch.arange(rows * columns).view(rows, columns)
        return 2 + places.T.flatten()

    def components(self) -> dict[str, Component]:
        """Features, patches, layers with their attention and MLP, final norm."""
        attention = {name: Component(f"{name}_proj") for name in ("q", "k", "v", "o")}
        layer = {
            "ln1": Component("layernorm_before"),
            "attn": Component("attention", parts=attention),
            "ln2": Component("layernorm_after"),
            "mlp": Component("mlp"),
            "mlp_in": Component("mlp.fc1"),
            "mlp_out": Component("mlp.fc2"),
        }
        return {
            "features": Component("filled_features"),
            "patches": Component("model.embeddings.patch_embeddings.projection"),
            "blocks": Component("model.layers", each=True, parts=layer),
            "ln_final": Component("model.layernorm"),
        }

    @property
    def mel_hook(self) -> str:
        """A window of features, filled up."""
        return "features.hook_in"

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers, all on the grid of the output."""
        count = self.config.num_hidden_layers
        return tuple(Block(f"blocks.{i}", self.grid, self._order) for i in range(count))

"""CLAP's audio tower, HTSAT: a Swin Transformer over a spectrogram folded into a square."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import ClapAudioConfig, ClapAudioModel
from transformers.audio_utils import hertz_to_mel, mel_filter_bank, mel_to_hertz, spectrogram
from transformers.audio_utils import window_function as make_window

from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples, check_samples
from palscope.encoders._base import (
    WindowedEncoder,
)
from palscope.encoders._config import ClipFeatures, EncoderConfig
from palscope.encoders._tower import Block, Component

_FFT, _HOP = 1024, 480
_WINDOW = 1000
"""Frames of 10 ms in the 10 s that are heard at once."""
_COLUMNS = _WINDOW + 1
"""Columns of a window's spectrogram: frames are centred, and the last one on its end."""

SIZES = (
    "window_size",
    "num_mel_bins",
    "spec_size",
    "patch_size",
    "patch_stride",
    "depths",
    "num_attention_heads",
    "enable_fusion",
    "fusion_type",
    "patch_embeds_hidden_size",
    "mlp_ratio",
    "qkv_bias",
    "aff_block_r",
)
"""The fields of `ClapConfig` that `transformers.ClapAudioConfig` knows, under the same names."""


@dataclass(frozen=True)
class ClapConfig(EncoderConfig):
    """Sizes under the names of `transformers.ClapAudioConfig` (defaults: LAION's HTSAT-tiny).

    Attributes:
        enable_fusion: the published *fused* checkpoints; sound is cut into windows of 10 s here, so
            that their branch for longer sound is never taken.
        frequency_min, frequency_max: Hz that the spectrogram spans.
    """

    kind: ClassVar[str] = "clap"
    sample_rate: ClassVar[int] = 48_000

    window_size: int = 8
    num_mel_bins: int = 64
    spec_size: int = 256
    patch_size: int = 4
    patch_stride: tuple[int, int] = (4, 4)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_attention_heads: tuple[int, ...] = (4, 8, 16, 32)
    enable_fusion: bool = False
    fusion_type: str | None = None
    patch_embeds_hidden_size: int = 96
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    aff_block_r: int = 4
    frequency_min: float = 50.0
    frequency_max: float = 14_000.0

    def __post_init__(self) -> None:
        for name in ("patch_stride", "depths", "num_attention_heads"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def mel_scale(self) -> str:
        """The scale of the mel bins: fused and unfused checkpoints differ."""
        return "htk" if self.enable_fusion else "slaney"

    def features(self, samples: Samples) -> ClipFeatures:
        """Log-mel of each window of 10 s (dB), a shorter one filled up as published.

        As often as it fits in, it is repeated, and silence fills the rest (`repeatpad`).
        """
        samples = check_samples(samples, "the samples given to CLAP")
        window = _WINDOW * _HOP
        pieces = [self._log_mel(samples[at : at + window]) for at in range(0, len(samples), window)]
        return ClipFeatures(torch.cat(pieces, dim=1), -(-len(samples) // _HOP))

    def _log_mel(self, samples: Samples) -> Float[Tensor, "mel columns"]:
        window = _WINDOW * _HOP
        repeated = np.tile(samples, window // len(samples))
        values = spectrogram(
            np.pad(repeated, (0, window - len(repeated))),
            make_window(_FFT, "hann"),
            frame_length=_FFT,
            hop_length=_HOP,
            power=2.0,
            mel_filters=_filters(
                self.num_mel_bins, self.frequency_min, self.frequency_max, self.mel_scale
            ),
            log_mel="dB",
        )
        return torch.from_numpy(cast(Any, values).astype(np.float32))

    def bin_hz(self) -> Float[np.ndarray, " mel"]:
        """Centres of the mel bins."""
        return self.hz_at(np.arange(self.num_mel_bins))

    def hz_at(self, places: np.ndarray) -> Float[np.ndarray, " places"]:
        """Frequencies of places on the axis of bins; bin `i` has its centre at `i`."""
        scale, ends = self.mel_scale, (self.frequency_min, self.frequency_max)
        low, high = (float(hertz_to_mel(hz, mel_scale=scale)) for hz in ends)
        mels = low + (places + 1) * (high - low) / (self.num_mel_bins + 1)
        return cast(Any, mel_to_hertz)(mels, mel_scale=scale)

    def transformers_config(self) -> ClapAudioConfig:
        """Return the same sizes for `transformers`."""
        return ClapAudioConfig(**{name: getattr(self, name) for name in SIZES})


class ClapEncoder(WindowedEncoder[ClapConfig]):
    """CLAP's audio tower of any size, unfused or fused. `model` is that of `transformers`.

    Tokens are those of the last feature map, put back from the folded square into time × frequency:
    for LAION's sizes 32 columns of 312.5 ms with two bands each. Sound is heard in windows of 10 s,
    one after the other; a shorter one is repeated to fill its window, as published, and the tokens
    of its first hearing are the states. A token knows of its whole window, repetitions included.
    """

    def __init__(self, config: ClapConfig) -> None:
        super().__init__(config)
        self.model = ClapAudioModel(config.transformers_config())

    @property
    def width(self) -> int:
        """Channels of the last feature map."""
        return self.config.patch_embeds_hidden_size * 2 ** (len(self.config.depths) - 1)

    @property
    def grid(self) -> TimeGrid:
        """The last feature map's, with the band of each row."""
        return self._grid(len(self.config.depths) - 1)

    @property
    def window(self) -> int:
        """Frames encoded at once (10 s)."""
        return _WINDOW

    @property
    def bins(self) -> int:
        """Mel bins."""
        return self.config.num_mel_bins

    def columns(self, frames: int) -> int:
        """A whole window's, however many frames are the clip's."""
        return _COLUMNS

    def encode_window(
        self, features: Float[Tensor, "clips mel columns"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """At most one window of sound, each clip by itself."""
        spectrograms = features.transpose(1, 2)[:, None]
        none_longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
        found = self.model(input_features=spectrograms, is_longer=none_longer)
        # [clips, width, frequency, time]
        return found.last_hidden_state.permute(0, 3, 2, 1).flatten(1, 2)

    def components(self) -> dict[str, Component]:
        """Patches, the stages' layers with their attention and MLP, final norm."""
        attention = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
        layer = {
            "ln1": Component("layernorm_before"),
            "attn": Component(
                "attention", parts={name: Component(path) for name, path in attention.items()}
            ),
            "ln2": Component("layernorm_after"),
            "mlp_in": Component("intermediate.dense"),
            "mlp_out": Component("output.dense"),
        }
        blocks = Component("blocks", each=True, parts=layer)
        return {
            "patches": Component("model.audio_encoder.patch_embed"),
            "stages": Component("model.audio_encoder.layers", each=True, parts={"blocks": blocks}),
            "ln_final": Component("model.audio_encoder.norm"),
        }

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers of all stages, each on its stage's grid."""
        return tuple(
            Block(f"stages.{stage}.blocks.{number}", self._grid(stage), self._order(stage))
            for stage, depth in enumerate(self.config.depths)
            for number in range(depth)
        )

    def _map(self, stage: int) -> tuple[int, int, int]:
        """Folds of the square, and the columns and rows of each, at a stage."""
        config = self.config
        folds = config.spec_size // config.num_mel_bins
        side = config.spec_size // config.patch_stride[0] // 2**stage
        return folds, side, side // folds

    def _grid(self, stage: int) -> TimeGrid:
        folds, columns, rows = self._map(stage)
        hz = self.config.hz_at(np.arange(rows + 1) * (self.bins // rows) - 0.5)
        return TimeGrid(10 / (folds * columns), rows, tuple(hz.tolist()))

    def _order(self, stage: int) -> Int[Tensor, " tokens"]:
        """Places of a window's tokens, time first, in a stage's square.

        A fold is a quarter of the window (for LAION's sizes); the square has one above the other.
        """
        folds, columns, rows = self._map(stage)
        places = torch.arange(folds * rows * columns).view(folds, rows, columns)
        return places.transpose(1, 2).flatten()


@cache
def _filters(bins: int, low: float, high: float, scale: str) -> Float[np.ndarray, "spectrum mel"]:
    return mel_filter_bank(
        num_frequency_bins=_FFT // 2 + 1,
        num_mel_filters=bins,
        min_frequency=low,
        max_frequency=high,
        sampling_rate=ClapConfig.sample_rate,
        norm="slaney" if scale == "slaney" else None,
        mel_scale=scale,
    )

"""EAT and SSLAM: a Vision Transformer over spectrogram patches of 160 ms and 16 mel bins.

SSLAM (Alex et al., ICLR 2025) is EAT (Chen et al., IJCAI 2024) trained on mixtures; both are
fairseq's `data2vec_multi` with one modality, and share their code. This module is written anew, and
keeps the names of the published state dicts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from palscope.audio._fbank import kaldi_hz, windowed_fbank
from palscope.audio._timegrid import SECONDS_PER_FEATURE, TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders._base import (
    WindowedEncoder,
    check_layers,
    filled,
)
from palscope.encoders._config import ClipFeatures, EncoderConfig
from palscope.encoders._tower import Block, Component

PATCH = 16
"""Frames and mel bins of a patch."""


@dataclass(frozen=True)
class EATConfig(EncoderConfig):
    """Sizes (defaults: EAT-base), and which layers make up a token's state.

    Attributes:
        embed_dim: width.
        depth: number of layers.
        num_heads: attention heads.
        mlp_ratio: width of the feed-forward network over `embed_dim`.
        num_mel_bins: rows of the spectrogram.
        target_length: frames of a window, to which shorter sound is filled up with log energy 0.
        max_length: columns of patches for which the checkpoint has positions.
        mean, std: of the log energies over the training set; features are `(x - mean) / (2 std)`.
        layers: the hidden states, side by side, that make up a token's state: 0 enters the first
            layer, `i` leaves layer `i`. Layers above the highest are not run.
    """

    kind: ClassVar[str] = "eat"

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    num_mel_bins: int = 128
    target_length: int = 1024
    max_length: int = 768
    mean: float = -4.268
    std: float = 4.569
    layers: tuple[int, ...] = (12,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", check_layers(self.kind, self.layers, self.depth))

    @property
    def fill(self) -> float:
        """What a frame without sound holds: log energy 0, normalised."""
        return -self.mean / (2 * self.std)

    def features(self, samples: Samples) -> ClipFeatures:
        """Kaldi's filter banks of each window by itself, normalised."""
        values = windowed_fbank(samples, self.num_mel_bins, self.target_length)
        return ClipFeatures((values - self.mean) / (2 * self.std), values.shape[1])

    def bin_hz(self) -> Float[np.ndarray, " bins"]:
        """Centres of the mel bins."""
        return kaldi_hz(np.arange(self.num_mel_bins), self.num_mel_bins)


@dataclass(frozen=True)
class SSLAMConfig(EATConfig):
    """As `EATConfig`: SSLAM has EAT-base's sizes."""

    kind: ClassVar[str] = "sslam"


class EATEncoder(WindowedEncoder[EATConfig]):
    """EAT or SSLAM, without what only pre-training needs.

    Every clip is filled up to windows of `target_length` frames (10.24 s), as the published feature
    extraction does; the filling takes part in attention, and its tokens are cut off afterwards. A
    CLS token runs along, first in every layer; it is not among the states.

    Token `i` stands for frames `16 * (i // 8)` onwards and for the mel bins `16 * (i % 8)` onwards:
    160 ms a column, time first. Its patch hears 15 ms more to the right.
    """

    def __init__(self, config: EATConfig) -> None:
        super().__init__(config)
        self.filled_features = nn.Identity()
        self.model = EAT(config)

    @property
    def width(self) -> int:
        """`embed_dim` for each of the chosen layers."""
        return self.config.embed_dim * len(self.config.layers)

    @property
    def rows(self) -> int:
        """Patches, of different frequencies, in a column."""
        return self.config.num_mel_bins // PATCH

    @property
    def grid(self) -> TimeGrid:
        """160 ms a column, with the band of mel bins of each row."""
        bins = self.config.num_mel_bins
        hz = kaldi_hz(np.arange(self.rows + 1) * PATCH - 0.5, bins)
        return TimeGrid(PATCH * SECONDS_PER_FEATURE, self.rows, tuple(hz.tolist()))

    @property
    def window(self) -> int:
        """Frames encoded at once."""
        return self.config.target_length

    @property
    def bins(self) -> int:
        """Mel bins."""
        return self.config.num_mel_bins

    def encode_window(
        self, features: Float[Tensor, "clips bins frames"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """At most one window of sound, each clip by itself."""
        features = self.filled_features(filled(features, lengths, self.window, self.config.fill))
        # The published model takes [clips, 1, frames, bins].
        states = self.model(features.transpose(1, 2)[:, None], max(self.config.layers))
        return torch.cat([states[layer][:, 1:] for layer in self.config.layers], dim=-1)

    def components(self) -> dict[str, Component]:
        """Features, patches, layers with their attention and MLP."""
        layer = {
            "attn": Component("attn", parts={"qkv": Component("qkv"), "o": Component("proj")}),
            "ln1": Component("norm1"),
            "mlp": Component("mlp"),
            "mlp_in": Component("mlp.fc1"),
            "mlp_out": Component("mlp.fc2"),
            "ln2": Component("norm2"),
        }
        patches = "model.modality_encoders.IMAGE.local_encoder"
        return {
            "features": Component("filled_features"),
            "patches": Component(f"{patches}.proj"),
            "ln_pre": Component("model.modality_encoders.IMAGE.context_encoder.norm"),
            "blocks": Component("model.blocks", each=True, parts=layer),
        }

    @property
    def mel_hook(self) -> str:
        """A window of features, filled up."""
        return "features.hook_in"

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers, all on the grid of the output, behind the CLS token."""
        order = 1 + torch.arange(self.tokens(self.window))
        return tuple(Block(f"blocks.{i}", self.grid, order) for i in range(self.config.depth))


class EAT(nn.Module):
    """The published model under its own names: `modality_encoders.IMAGE` and `blocks`."""

    def __init__(self, config: EATConfig) -> None:
        super().__init__()
        hidden = int(config.embed_dim * config.mlp_ratio)
        # Its only modality, the spectrogram, is called IMAGE.
        self.modality_encoders = nn.ModuleDict({"IMAGE": _Patches(config)})
        self.blocks = nn.ModuleList(
            _Layer(config.embed_dim, config.num_heads, hidden) for _ in range(config.depth)
        )

    def forward(
        self, spectrogram: Float[Tensor, "clips 1 frames bins"], layers: int
    ) -> list[Float[Tensor, "clips columns width"]]:
        """The state that enters the first layer, and those that leave the first `layers`."""
        states = [self.modality_encoders["IMAGE"](spectrogram)]
        for layer in self.blocks[:layers]:
            states.append(layer(states[-1]))
        return states


class _Patches(nn.Module):
    """Patches, with fixed positions and a CLS token before them, normed."""

    def __init__(self, config: EATConfig) -> None:
        super().__init__()
        width, rows = config.embed_dim, config.num_mel_bins // PATCH
        self.local_encoder = nn.Module()
        self.local_encoder.proj = nn.Conv2d(1, width, PATCH, PATCH)
        self.fixed_positional_encoder = nn.Module()
        self.fixed_positional_encoder.positions = nn.Parameter(
            fixed_positions(width, config.max_length, rows)[None], requires_grad=False
        )
        self.extra_tokens = nn.Parameter(torch.randn(1, 1, width))
        self.context_encoder = nn.Module()
        self.context_encoder.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(
        self, spectrogram: Float[Tensor, "clips 1 frames bins"]
    ) -> Float[Tensor, "clips columns width"]:
        patches: Tensor = cast(nn.Module, self.local_encoder.proj)(spectrogram)
        tokens = patches.flatten(2).transpose(1, 2)
        positions = cast(Tensor, self.fixed_positional_encoder.positions)
        tokens = tokens + positions[:, : tokens.shape[1]].to(tokens.dtype)
        tokens = torch.cat([self.extra_tokens.expand(len(tokens), -1, -1), tokens], dim=1)
        return cast(nn.Module, self.context_encoder.norm)(tokens)


class _Layer(nn.Module):
    """A layer whose norms come after what is added (data2vec 2.0's `AltBlock`)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width))
        )

    def forward(
        self, x: Float[Tensor, "clips tokens width"]
    ) -> Float[Tensor, "clips tokens width"]:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "clips tokens width"]
    ) -> Float[Tensor, "clips tokens width"]:
        clips, tokens, width = x.shape
        qkv = self.qkv(x).view(clips, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(read.transpose(1, 2).reshape(clips, tokens, width))


def fixed_positions(width: int, columns: int, rows: int) -> Float[Tensor, "tokens width"]:
    """Sines and cosines of each patch's row (first half of the width) and column, time-major."""
    steps = width // 4
    rates = 1 / 10000 ** (torch.arange(steps, dtype=torch.float64) / steps)
    places = torch.arange(columns * rows, dtype=torch.float64)
    row, column = (at[:, None] * rates for at in (places % rows, places // rows))
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1).float()

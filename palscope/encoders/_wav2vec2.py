"""wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447), WavLM (2110.13900): encoders of samples.

Convolutions make a token of 25 ms of samples every 20 ms, and a transformer follows. The three
differ in how they were trained, and WavLM in its attention. No spectrogram is made: what is called
features are the samples themselves, 10 ms of them in a column.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertConfig as HFHubertConfig
from transformers import HubertModel, PreTrainedModel, Wav2Vec2Model, WavLMModel
from transformers import Wav2Vec2Config as HFWav2Vec2Config
from transformers import WavLMConfig as HFWavLMConfig
from transformers.masking_utils import create_bidirectional_mask

from palscope._queued import queued
from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples, check_samples
from palscope.encoders._base import WindowedEncoder, check_layers, hidden_states, length_mask
from palscope.encoders._config import ClipFeatures, EncoderConfig
from palscope.encoders._tower import Block, Component
from palscope.errors import CheckpointError

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "feat_extract_norm",
    "feat_extract_activation",
    "conv_dim",
    "conv_stride",
    "conv_kernel",
    "conv_bias",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
    "do_stable_layer_norm",
)
"""The fields of all three configs that `transformers` knows too, under the same names."""
HUBERT_SIZES = (*SIZES, "feat_proj_layer_norm")
WAVLM_SIZES = (*SIZES, "num_buckets", "max_bucket_distance")

COLUMN = 160
"""Samples in a column of features: 10 ms."""

_NO_CHANCE: dict[str, Any] = {
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    **dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout", "layerdrop"), 0),
}
"""What pre-training does at random, left out."""


@dataclass(frozen=True)
class SampleEncoderConfig(EncoderConfig):
    """Sizes under the names of `transformers`, and two choices.

    Attributes:
        normalize: give each window mean 0 and variance 1 (`do_normalize` of the front end).
        window_frames: longest sound that is encoded at once, in frames of 10 ms. The published
            models have no such bound, but attention over a window costs its square.
        layers: as in `WhisperEncoderConfig`: 0 enters the first layer. The last one's states pass
            the final norm where there is one (`do_stable_layer_norm`), as published.

    Raises:
        CheckpointError: the convolutions' fields differ in length, a token's step is no multiple of
            10 ms, the window none of the step, or there are no such layers.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    normalize: bool = True
    window_frames: int = 3000
    layers: tuple[int, ...] = (12,)

    def __post_init__(self) -> None:
        layers = check_layers(self.kind, self.layers, self.num_hidden_layers)
        object.__setattr__(self, "layers", layers)
        for name in ("conv_dim", "conv_stride", "conv_kernel"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lengths = {len(each) for each in (self.conv_dim, self.conv_stride, self.conv_kernel)}
        if len(lengths) > 1:
            raise CheckpointError(
                f"conv_dim, conv_stride and conv_kernel of a {self.kind} encoder have "
                f"{sorted(lengths)} entries; expected one each for every convolution."
            )
        heard = self.window_frames * COLUMN
        if min(self.step, heard) < 1 or self.step % COLUMN or heard % self.step:
            raise CheckpointError(
                f"a {self.kind} encoder with a token every {self.step} samples and windows of "
                f"{self.window_frames} frames; expected a step of whole frames of {COLUMN} "
                "samples, and windows of whole steps."
            )

    @property
    def step(self) -> int:
        """Samples from one token to the next: the product of the strides."""
        return math.prod(self.conv_stride)

    @property
    def reach(self) -> int:
        """Samples that a token is made of, from the beginning of its step on."""
        apart = [math.prod(self.conv_stride[:i]) for i in range(len(self.conv_stride))]
        return 1 + sum((k - 1) * step for k, step in zip(self.conv_kernel, apart, strict=True))

    def features(self, samples: Samples) -> ClipFeatures:
        """The samples, `[161, frames]`: 160 to a column, and how many of these are the clip's."""
        samples = check_samples(samples, "the clip")
        edges = [*range(0, len(samples), self.window_frames * COLUMN), len(samples)]
        heard = [self._normalized(samples[start:end]) for start, end in pairwise(edges)]
        frames = math.ceil(len(samples) / COLUMN)
        values = torch.zeros(frames * COLUMN)
        values[: len(samples)] = torch.from_numpy(np.concatenate(heard))
        counts = torch.full((1, frames), float(COLUMN))
        counts[0, -1] = len(samples) - COLUMN * (frames - 1)
        return ClipFeatures(torch.cat([values.view(frames, COLUMN).T, counts]), frames)

    def _normalized(self, samples: Samples) -> Samples:
        """As `Wav2Vec2FeatureExtractor` does it."""
        if not self.normalize:
            return samples
        return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)

    @abstractmethod
    def build(self) -> PreTrainedModel:
        """The model of `transformers`, with random weights."""

    def _sizes(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names} | _NO_CHANCE


@dataclass(frozen=True)
class Wav2Vec2Config(SampleEncoderConfig):
    """wav2vec 2.0's, by default of the base size."""

    kind: ClassVar[str] = "wav2vec2"

    def build(self) -> Wav2Vec2Model:
        """The model of `transformers`, with random weights."""
        return Wav2Vec2Model(HFWav2Vec2Config(**self._sizes(SIZES)))


@dataclass(frozen=True)
class HubertConfig(SampleEncoderConfig):
    """HuBERT's, by default of the base size."""

    kind: ClassVar[str] = "hubert"

    feat_proj_layer_norm: bool = True

    def build(self) -> HubertModel:
        """The model of `transformers`, with random weights."""
        return HubertModel(HFHubertConfig(**self._sizes(HUBERT_SIZES)))


@dataclass(frozen=True)
class WavLMConfig(SampleEncoderConfig):
    """WavLM's, by default of the base size, which takes samples as they are."""

    kind: ClassVar[str] = "wavlm"

    num_buckets: int = 320
    max_bucket_distance: int = 800
    normalize: bool = False

    def build(self) -> WavLMModel:
        """The model of `transformers`, with random weights."""
        return WavLMModel(HFWavLMConfig(**self._sizes(WAVLM_SIZES)))


class SampleEncoder(WindowedEncoder[SampleEncoderConfig]):
    """wav2vec 2.0, HuBERT or WavLM. `model` is that of `transformers`, and keeps its names.

    A clip is encoded as if it were alone: its convolutions see its own samples (a norm over time
    would see what pads it), the transformer its own tokens.

    Token `i` is made of the 25 ms from `0.02 * i` on; its span are the first 20 ms of them. So the
    published models have no token for a clip's last 5 to 25 ms. Here there is one, or two: they
    enter the transformer empty, read the others, and are read by none, so the others' states are
    the published ones. A clip of less than 25 ms is followed by silence.
    """

    def __init__(self, config: SampleEncoderConfig) -> None:
        super().__init__(config)
        self.model = config.build()

    @property
    def width(self) -> int:
        """`hidden_size` for each of the chosen layers."""
        return self.config.hidden_size * len(self.config.layers)

    @property
    def grid(self) -> TimeGrid:
        """20 ms a token."""
        return TimeGrid(self.config.step / self.config.sample_rate)

    @property
    def window(self) -> int:
        """Frames encoded at once."""
        return self.config.window_frames

    @property
    def bins(self) -> int:
        """Samples in a column, and their count."""
        return COLUMN + 1

    def encode_window(
        self, features: Float[Tensor, "clips bins columns"], lengths: Int[Tensor, " clips"]
    ) -> Float[Tensor, "clips tokens width"]:
        """At most one window of sound, each clip by itself."""
        samples = features[:, :-1].transpose(1, 2).flatten(1)
        inside = length_mask(lengths, features.shape[-1])
        # Not in half precision, which cannot count so far.
        counts = features[:, -1].double().masked_fill(~inside, 0).sum(1).long()
        counted: list[int] = cast(Any, counts).tolist()
        convolved = [self._convolved(clip[:n]) for clip, n in zip(samples, counted, strict=True)]
        whole = queued(torch.tensor([len(each) for each in convolved]), features.device)
        hidden = pad_sequence(convolved, batch_first=True)
        missing = self.tokens(int(lengths.max())) - hidden.shape[1]
        hidden = functional.pad(hidden, (0, 0, 0, missing))
        return self._transformed(hidden, length_mask(whole, hidden.shape[1]))

    def _convolved(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "tokens channels"]:
        """What the convolutions make of a clip's own samples."""
        short = max(0, self.config.reach - len(samples))
        samples = functional.pad(samples, (0, short))
        return cast(Any, self.model).feature_extractor(samples[None])[0].T

    def _transformed(
        self, hidden: Float[Tensor, "clips tokens channels"], heard: Bool[Tensor, "clips tokens"]
    ) -> Float[Tensor, "clips tokens width"]:
        """Projection, positions and layers, blind to tokens that are not `heard`."""
        model = cast(Any, self.model)
        projected = model.feature_projection(hidden)
        hidden = projected if isinstance(projected, Tensor) else projected[0]
        hidden = hidden.masked_fill(~heard[..., None], 0)
        encoder, norm = model.encoder, None
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if self.config.do_stable_layer_norm:
            norm = encoder.layer_norm
        else:
            hidden = encoder.layer_norm(hidden)
        if isinstance(self.config, WavLMConfig):
            layers, mask = _with_bias(encoder.layers), heard
        else:
            layers, mask = encoder.layers, create_bidirectional_mask(model.config, hidden, heard)
        with _without_warning():
            states = hidden_states(hidden, layers, self.config.layers, mask, norm=norm)
        return torch.cat(states, dim=-1)

    def components(self) -> dict[str, Component]:
        """Convolutions, projection, positions, layers with attention and MLP, and the norm.

        WavLM's attention multiplies by its projections' weights itself, so they have no hook.
        """
        projections = {
            **{name: Component(f"{name}_proj") for name in ("q", "k", "v")},
            "o": Component("out_proj"),
        }
        with_parts = not isinstance(self.config, WavLMConfig)
        layer = {
            "ln1": Component("layer_norm"),
            "attn": Component("attention", parts=projections if with_parts else {}),
            "ln2": Component("final_layer_norm"),
            "mlp_in": Component("feed_forward.intermediate_dense"),
            "mlp_out": Component("feed_forward.output_dense"),
        }
        return {
            "conv": Component("model.feature_extractor.conv_layers", each=True),
            "projection": Component("model.feature_projection"),
            "positions": Component("model.encoder.pos_conv_embed"),
            "blocks": Component("model.encoder.layers", each=True, parts=layer),
            "ln_final" if self.config.do_stable_layer_norm else "ln_pre": Component(
                "model.encoder.layer_norm"
            ),
        }

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers, all on the grid of the output."""
        order = torch.arange(self.tokens(self.window))
        count = self.config.num_hidden_layers
        return tuple(Block(f"blocks.{i}", self.grid, order) for i in range(count))


def _with_bias(layers: Any) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """WavLM's layers, which hand on the position bias that the first one makes."""
    bias: Tensor | None = None

    def handing_on(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
        def run(hidden: Tensor, heard: Tensor) -> Tensor:
            nonlocal bias
            hidden, bias = layer(hidden, attention_mask=heard, position_bias=bias)
            return hidden

        return run

    return [handing_on(layer) for layer in layers]


@contextmanager
def _without_warning() -> Generator[None, None, None]:
    """Without torch's word on WavLM's two masks, of which one is Boolean and one is not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)
        yield

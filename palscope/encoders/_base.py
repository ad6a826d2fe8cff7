"""What every encoder offers: a width, a time grid, states of clips at their true length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import TypeVar

from palscope._queued import queued
from palscope._whole import whole_numbers
from palscope.audio._timegrid import SECONDS_PER_FEATURE, TimeGrid
from palscope.encoders._config import EncoderConfig
from palscope.encoders._front_end import EncoderFeatureExtractor
from palscope.encoders._registry import find_encoder_classes
from palscope.encoders._tower import Block, Component, Passing
from palscope.errors import AudioError, CheckpointError

Config = TypeVar("Config", bound=EncoderConfig, default=EncoderConfig, covariant=True)
"""An encoder's own settings."""


class EncoderOutput(NamedTuple):
    """States of a batch of clips; rows past a clip's length are zero.

    `states`: `Float[Tensor, "clips tokens width"]`; `lengths`: `Int[Tensor, "clips"]`, in tokens.
    """

    states: Float[Tensor, "clips tokens width"]
    lengths: Int[Tensor, " clips"]


class EncoderTokens(NamedTuple):
    """What a connector must know of an `EncoderOutput` before there is one.

    `width`: size of a token's state; `grid`: which seconds a token stands for.
    """

    width: int
    grid: TimeGrid


class Encoder(nn.Module, ABC, Generic[Config]):
    """An encoder: features of clips in, a sequence of states on a time grid out.

    Args:
        config: the settings that it is built from.

    Attributes:
        config: these.
        passing: while its modules run, what they are called with.
    """

    a_call_a_clip: ClassVar[bool] = False
    """Whether what reads the output is called once a clip too, while the clip passes."""
    passing: Passing | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @property
    @abstractmethod
    def width(self) -> int:
        """Size of one token's state."""

    @property
    @abstractmethod
    def grid(self) -> TimeGrid:
        """Which seconds a token stands for."""

    @property
    @abstractmethod
    def window(self) -> int:
        """Feature frames of the longest sound that is encoded at once; longer sound is cut.

        A whole number of the grid's steps, so that tokens are counted over the clip.
        """

    @property
    @abstractmethod
    def bins(self) -> int:
        """Rows of the features."""

    @abstractmethod
    def forward(
        self,
        features: Float[Tensor, "clips bins columns"],
        lengths: Int[Tensor, " clips"],
    ) -> EncoderOutput:
        """Encode clips of `lengths` feature frames; other clips' columns are never read."""

    def tokens(self, frames: int) -> int:
        """How many tokens come of `frames` feature frames: those of the grid."""
        return self.grid.tokens(frames * SECONDS_PER_FEATURE)

    def feature_extractor(self) -> Any:
        """The processor's feature extractor, which makes what `forward` takes."""
        return EncoderFeatureExtractor(self.config.to_dict())

    @property
    def kind(self) -> str:
        """Its registered name."""
        return self.config.kind

    def bin_hz(self) -> Float[np.ndarray, " bins"] | None:
        """The centre of each row of the features, in Hz; None where they have none."""
        return self.config.bin_hz()

    @property
    def floor_db(self) -> float | None:
        """As `EncoderConfig.floor_db`."""
        return self.config.floor_db

    def blank(self) -> np.ndarray:
        """A short clip of nothing, as the processor takes it."""
        return self.config.blank()

    # -- several together -------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Encoder, ...]:
        """The encoders that it consists of: itself, where it is but one."""
        return (self,)

    @property
    def emits(self) -> tuple[EncoderTokens, ...]:
        """Width and grid of each of `outputs`, one for each of `parts`."""
        return tuple(EncoderTokens(part.width, part.grid) for part in self.parts)

    def outputs(
        self,
        features: Float[Tensor, "clips bins columns"],
        lengths: Int[Tensor, " clips"],
    ) -> tuple[EncoderOutput, ...]:
        """What the connector reads: the states of each of `parts`."""
        return (self(features, lengths),)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What stands before the names of each part's components; nothing where it is but one."""
        return ("",)

    # -- hook points ------------------------------------------------------------------------------

    def components(self) -> dict[str, Component]:
        """Parts that are hooked, by name; under TransformerLens the names get `audio_` before."""
        return {}

    @property
    def mel_hook(self) -> str | None:
        """Hook point of `components` at which a window's features pass, `[clips, bins, frames]`.

        None where there is none: a filled window repeats the clip's frames, so that changing some
        of them would not change what is heard.
        """
        return None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Layers that can be addressed by seconds, bottom first."""
        return ()


class WindowedEncoder(Encoder[Config]):
    """An encoder that hears a long clip in windows, one after the other, each on its own."""

    def columns(self, frames: int) -> int:
        """Columns of the features that hold a window of which `frames` are the clip's."""
        return frames

    @abstractmethod
    def encode_window(
        self,
        features: Float[Tensor, "clips bins columns"],
        lengths: Int[Tensor, " clips"],
    ) -> Float[Tensor, "clips tokens width"]:
        """States of at most one window of sound; what stands past a clip's tokens may be anything.

        Features past a clip's own columns may be anything, too.
        """

    def forward(
        self,
        features: Float[Tensor, "clips bins columns"],
        lengths: Int[Tensor, " clips"],
    ) -> EncoderOutput:
        """States of clips of `lengths` feature frames, padded at the end.

        Each clip's states are those it has alone, to rounding. Raises `AudioError` when features
        and lengths do not fit together or a clip is empty.
        """
        self._check_shapes(features, lengths)
        clips: tuple[int, ...] = tuple(cast(Any, lengths).tolist())
        self._check_lengths(features, clips)
        features = features.to(next(self.parameters()).dtype)
        longest = max(clips)
        states = features.new_zeros(len(features), self.tokens(longest), self.width)
        # One window at a time bounds the memory by the batch, not by the length of the sound.
        try:
            for start in range(0, longest, self.window):
                here = tuple(clip for clip, frames in enumerate(clips) if frames > start)
                rows = queued(torch.tensor(here), lengths.device)
                left = (lengths[rows] - start).clamp(max=self.window)
                most = min(longest - start, self.window)
                first = self.columns(self.window) * (start // self.window)
                piece = features[rows, :, first : first + self.columns(most)]
                tokens = self.token_lengths(left)
                self.passing = Passing(here, start * SECONDS_PER_FEATURE, clips)
                encoded = self.encode_window(piece, left)[:, : self.tokens(most)]
                at = self.tokens(start) if start else 0
                states[rows, at : at + encoded.shape[1]] = encoded.masked_fill(
                    ~length_mask(tokens, encoded.shape[1])[:, :, None], 0
                )
        finally:
            self.passing = None
        return EncoderOutput(states, self.token_lengths(lengths))

    def token_lengths(self, lengths: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """`tokens` of each of `lengths`."""
        frames: list[int] = cast(Any, lengths).tolist()
        counts = torch.tensor([self.tokens(each) for each in frames], dtype=lengths.dtype)
        return queued(counts, lengths.device)

    def _check_shapes(self, features: Tensor, lengths: Tensor) -> None:
        bins = self.bins
        if features.ndim != 3 or features.shape[1] != bins or lengths.shape != features.shape[:1]:
            raise AudioError(
                f"Features {tuple(features.shape)} with lengths {tuple(lengths.shape)}; "
                f"expected [clips, {bins} mel bins, frames] and [clips]. "
                "Use the feature extractor of this encoder."
            )

    @staticmethod
    def _check_lengths(features: Tensor, lengths: Sequence[int]) -> None:
        if min(lengths) < 1 or max(lengths) > features.shape[-1]:
            raise AudioError(
                f"Lengths {list(lengths)} in mel frames; "
                f"expected 1 to {features.shape[-1]}, the frames given."
            )


def build_encoder(config: EncoderConfig) -> Encoder:
    """Build the encoder of these settings, with random weights."""
    return find_encoder_classes(config.kind).encoder_class(config)


def length_mask(lengths: Int[Tensor, " clips"], size: int) -> Bool[Tensor, "clips size"]:
    """Tell, for each clip, the places up to its length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def filled(
    features: Float[Tensor, "clips bins columns"],
    lengths: Int[Tensor, " clips"],
    width: int,
    value: float,
) -> Float[Tensor, "clips bins width"]:
    """Features cut or filled up to `width` columns, those past each clip's length with `value`."""
    columns = min(features.shape[-1], width)
    inside = length_mask(lengths, columns)[:, None]
    kept = features[..., :columns].masked_fill(~inside, value)
    return nn.functional.pad(kept, (0, width - columns), value=value)


def hidden_states(
    hidden: Float[Tensor, "clips tokens width"],
    layers: Any,
    wanted: Sequence[int],
    *arguments: Any,
    norm: nn.Module | None = None,
) -> list[Float[Tensor, "clips tokens width"]]:
    """The hidden states `wanted`: 0 enters the first layer, `i` leaves layer `i`.

    Layers above the highest are not run.

    Args:
        hidden: what enters the first layer.
        layers: modules that give the next state, of a state and `arguments`.
        wanted: numbers of the states, in the order in which they are given back.
        norm: what the last layer's state passes.
    """
    states = [hidden]
    for layer in layers[: max(wanted)]:
        states.append(layer(states[-1], *arguments))
    if norm is not None and max(wanted) == len(layers):
        states[-1] = norm(states[-1])
    return [states[number] for number in wanted]


def check_layers(kind: str, layers: Sequence[int], count: int) -> tuple[int, ...]:
    """`layers` as a tuple, if they are hidden states of an encoder of `count` layers.

    Raises `CheckpointError` for a number that is none, for none at all and for one given twice.
    """
    layers = whole_numbers(layers, f"layers of a {kind} encoder", error=CheckpointError)
    wrong = [layer for layer in layers if not 0 <= layer <= count]
    if wrong or not layers or len(set(layers)) < len(layers):
        raise CheckpointError(
            f"layers={layers} of a {kind} encoder with {count} layers; "
            f"expected one or more different numbers from 0 to {count}."
        )
    return layers

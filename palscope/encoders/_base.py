"""What every encoder offers: features of a clip, a width, a time grid, states at true length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from palscope._queued import queued
from palscope._whole import whole_numbers
from palscope.audio._given import is_samples
from palscope.audio._timegrid import SECONDS_PER_FEATURE, TimeGrid
from palscope.audio._waveform import load_audio
from palscope.errors import AudioError, CheckpointError

Samples = Float[np.ndarray, " samples"]


class ClipFeatures(NamedTuple):
    """Features of one clip, and its length in frames of 10 ms.

    `values`: `Float[Tensor, "bins columns"]`, in which columns past the length, if there are some,
    belong to the clip too: they are how the published front end fills the encoder's window.
    """

    values: Float[Tensor, "bins columns"]
    frames: int


@dataclass(frozen=True)
class Clip:
    """A clip as it was given, before it is known at which rate it is heard.

    Attributes:
        given: whatever `load_audio` takes.
        native_rate: Hz of bare samples.
        max_seconds: longest sound allowed.
    """

    given: Any
    native_rate: int | None = None
    max_seconds: float | None = None

    def samples(self, rate: int) -> Samples:
        """Mono samples at `rate` Hz. Raises `AudioError` when it is no sound that can be used."""
        given: Any = self.given
        native = self.native_rate if is_samples(given) else None
        return load_audio(
            given, sample_rate=rate, native_rate=native, max_seconds=self.max_seconds
        ).samples


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


@dataclass(frozen=True)
class Component:
    """A part of an encoder where one can listen: it gets a hook point before and one behind.

    Attributes:
        path: of the submodule, from what names it or from the component that holds this one.
        each: the submodule is a list, and every item of it is one, numbered from 0.
        parts: components inside, by name.
        pattern: it is attention that hands its pattern to a module of its own, `pattern`.
    """

    path: str
    each: bool = False
    parts: dict[str, Component] = field(default_factory=dict[str, "Component"])
    pattern: bool = False

    def within(self, path: str) -> Component:
        """This part as named from what holds the module `path`."""
        return replace(self, path=f"{path}.{self.path}")


class Block(NamedTuple):
    """A layer of an encoder as a place that can be addressed by seconds.

    `name`: of its component, `blocks.3`; `grid`: of the tokens that leave it; `order`: places, in
    the layer's tensor `[clips, places, width]`, of a window's tokens in the grid's order.
    """

    name: str
    grid: TimeGrid
    order: Int[Tensor, " tokens"]


class Passing(NamedTuple):
    """What an encoder's modules are being called with, for hooks that must find tokens there.

    In a tensor that passes, read row by row less its last dimension, the clips' tokens stand one
    clip behind the other, with as many places for each.

    `clips`: their numbers in the call; `start`: second of these clips at which the tokens begin;
    `lengths`: of all clips of the call, in feature frames.
    """

    clips: tuple[int, ...]
    start: float
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class EncoderConfig(ABC):
    """Settings of an encoder: plain values, so that a checkpoint's `config.json` can hold them.

    They say all that must be known before there are weights: the clip's features, too.
    """

    kind: ClassVar[str]
    sample_rate: ClassVar[int] = 16_000
    """Hz of the samples that `features` takes."""
    floor_db: ClassVar[float | None] = None
    """Where features end a fixed distance below the clip's loudest bin: decibels in one unit of
    them. None where they have no such floor."""

    @abstractmethod
    def features(self, samples: Samples) -> ClipFeatures:
        """What the encoder hears of mono `samples` at `sample_rate`, a frame each 10 ms.

        Raises `AudioError` for samples that are empty, not mono or not finite.
        """

    def hear(self, clip: Clip) -> ClipFeatures:
        """The features of a clip. Raises `AudioError` when it cannot be used."""
        return self.features(clip.samples(self.sample_rate))

    def bin_hz(self) -> Float[np.ndarray, " bins"] | None:
        """The centre of each row of the features, in Hz; None where they have none."""
        return None

    def blank(self) -> np.ndarray:
        """A short clip of nothing, as the processor takes it."""
        return np.zeros(self.sample_rate // 10, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON knows them, with `kind`, the encoder's registered name."""
        settings = {"kind": self.kind, **asdict(self)}
        return {
            name: list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
            for name, value in settings.items()
        }

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> EncoderConfig:
        """Undo `to_dict`. Raises `CheckpointError` for a field that does not exist."""
        known = {each.name for each in fields(cls)}
        given = {name: value for name, value in settings.items() if name != "kind"}
        if unknown := sorted(given.keys() - known):
            raise CheckpointError(
                f"Settings of the {cls.kind} encoder hold {', '.join(unknown)}; "
                f"expected only {', '.join(sorted(known))}."
            )
        return cls(**given)


class Encoder(nn.Module, ABC):
    """An encoder: features of clips in, a sequence of states on a time grid out.

    Attributes:
        passing: while its modules run, what they are called with.
    """

    a_call_a_clip: ClassVar[bool] = False
    """Whether what reads the output is called once a clip too, while the clip passes."""
    passing: Passing | None = None

    @property
    @abstractmethod
    def config(self) -> EncoderConfig:
        """The settings it was built from."""

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
        from palscope.encoders._front_end import EncoderFeatureExtractor

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

    # -- places to listen -------------------------------------------------------------------------

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


class WindowedEncoder(Encoder):
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
                    ~within(tokens, encoded.shape[1])[:, :, None], 0
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


def within(lengths: Int[Tensor, " clips"], size: int) -> Bool[Tensor, "clips size"]:
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
    inside = within(lengths, columns)[:, None]
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

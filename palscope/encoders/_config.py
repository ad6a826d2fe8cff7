"""An encoder's settings, which say all that must be known before there are weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from palscope.audio._given import is_samples
from palscope.audio._waveform import Samples, Waveform, load_audio
from palscope.errors import CheckpointError


class ClipFeatures(NamedTuple):
    """Features of one clip, and its length in frames of 10 ms.

    `values`: `Float[Tensor, "bins columns"]`, in which columns past the length, if there are some,
    belong to the clip too: they are how the published front end fills the encoder's window.
    """

    values: Float[Tensor, "bins columns"]
    frames: int


@dataclass(frozen=True)
class GivenClip:
    """A clip as it was given, before it is known at which rate it is heard.

    Attributes:
        given: whatever `load_audio` takes.
        native_rate: Hz of bare samples.
        max_seconds: longest sound allowed.
    """

    given: Any
    native_rate: int | None = None
    max_seconds: float | None = None

    def waveform(self, rate: int) -> Waveform:
        """The clip, mono at `rate` Hz. Raises `AudioError` when it is no sound that can be used."""
        given: Any = self.given
        native = self.native_rate if is_samples(given) else None
        return load_audio(given, sample_rate=rate, native_rate=native, max_seconds=self.max_seconds)


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

    def extract(self, clip: GivenClip) -> ClipFeatures:
        """The features of a clip. Raises `AudioError` when it cannot be used."""
        return self.features(clip.waveform(self.sample_rate).samples)

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

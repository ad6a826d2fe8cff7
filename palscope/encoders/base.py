"""What every audio encoder offers: a width, a time grid, states of clips at their true length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from palscope.audio.timegrid import TimeGrid
from palscope.errors import CheckpointError


class EncoderOutput(NamedTuple):
    """States of a batch of clips; rows past a clip's length are zero.

    `states`: `Float[Tensor, "clips tokens width"]`; `lengths`: `Int[Tensor, "clips"]`, in tokens.
    """

    states: Float[Tensor, "clips tokens width"]
    lengths: Int[Tensor, " clips"]


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of an encoder: plain values, so that a checkpoint's `config.json` can hold them."""

    kind: ClassVar[str]

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
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in settings.items() if name != "kind"}
        if unknown := sorted(given.keys() - known):
            raise CheckpointError(
                f"Settings of the {cls.kind} encoder hold {', '.join(unknown)}; "
                f"expected only {', '.join(sorted(known))}."
            )
        return cls(**given)


class Encoder(nn.Module, ABC):
    """An audio encoder: features of clips in, a sequence of states on a time grid out."""

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
        """Feature frames of the longest sound that is encoded at once; longer sound is cut."""

    @abstractmethod
    def tokens(self, frames: int) -> int:
        """How many tokens come of `frames` feature frames."""

    @abstractmethod
    def feature_extractor(self) -> Any:
        """Make the Hugging Face feature extractor whose features `forward` takes."""

    @abstractmethod
    def forward(
        self,
        features: Float[Tensor, "clips bins frames"],
        lengths: Int[Tensor, " clips"],
    ) -> EncoderOutput:
        """Encode clips of `lengths` feature frames; what stands past a length is never read."""

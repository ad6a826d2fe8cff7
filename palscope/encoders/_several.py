"""Several encoders that hear the same clip, side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palscope.audio._timegrid import TimeGrid
from palscope.audio._waveform import Samples
from palscope.encoders._base import (
    Encoder,
    EncoderOutput,
    EncoderTokens,
    build_encoder,
)
from palscope.encoders._config import ClipFeatures, EncoderConfig, GivenClip
from palscope.encoders._registry import encoder_config
from palscope.encoders._tower import Component
from palscope.errors import AudioError, CheckpointError


@dataclass(frozen=True)
class SeveralConfig(EncoderConfig):
    """The settings of each part (`EncoderConfig.to_dict`)."""

    kind: ClassVar[str] = "several"

    parts: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))  # JSON has lists only
        kinds = [part.get("kind") for part in self.parts]
        if len(kinds) < 2 or self.kind in kinds:
            raise CheckpointError(
                f"Several encoders of kinds {kinds}; expected two or more, none of them 'several'."
            )

    @property
    def configs(self) -> tuple[EncoderConfig, ...]:
        """The parts' settings, read."""
        return tuple(encoder_config(part) for part in self.parts)

    @property
    def sample_rate(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The highest of the parts' rates, in Hz."""
        return max(config.sample_rate for config in self.configs)

    def features(self, samples: Samples) -> ClipFeatures:
        """Refused: the parts may hear at different rates; `extract` gives each its own."""
        raise NotImplementedError("ask extract() for the features of several encoders")

    def extract(self, clip: GivenClip) -> ClipFeatures:
        """The parts' features stacked on one another, each of the clip at its own rate.

        Resampled, a clip may be a frame longer for one part than for another: the frames are those
        that all have.
        """
        made = [config.extract(clip) for config in self.configs]
        widest = max(values.shape[1] for values, _ in made)
        filled = [nn.functional.pad(values, (0, widest - values.shape[1])) for values, _ in made]
        return ClipFeatures(torch.cat(filled), min(frames for _, frames in made))


class Several(Encoder[SeveralConfig]):
    """Encoders that hear the same clip; `outputs` gives the states of each.

    It has no width, grid or states as a whole: those are the parts'.
    """

    def __init__(self, config: SeveralConfig, parts: tuple[Encoder, ...] | None = None) -> None:
        super().__init__(config)
        made = tuple(build_encoder(part) for part in config.configs) if parts is None else parts
        self.members = nn.ModuleDict(dict(zip(_names(config), made, strict=True)))

    @classmethod
    def of(cls, *parts: Encoder) -> Several:
        """These encoders, with their weights, together."""
        return cls(SeveralConfig(tuple(part.config.to_dict() for part in parts)), parts)

    @property
    def parts(self) -> tuple[Encoder, ...]:
        """The encoders, in the order of their settings."""
        made: Any = self.members.values()
        return tuple(made)

    @property
    def width(self) -> int:
        """Not one: raises `CheckpointError`."""
        raise CheckpointError("several encoders have a width each; ask `emits`.")

    @property
    def grid(self) -> TimeGrid:
        """Not one: raises `CheckpointError`."""
        raise CheckpointError("several encoders have a time grid each; ask `emits`.")

    @property
    def bins(self) -> int:
        """Rows of the parts' features together."""
        return sum(part.bins for part in self.parts)

    @property
    def window(self) -> int:
        """Feature frames after which all of them begin anew."""
        return math.lcm(*(part.window for part in self.parts))

    @property
    def emits(self) -> tuple[EncoderTokens, ...]:
        """Width and grid of each part's tokens."""
        return tuple(each for part in self.parts for each in part.emits)

    def forward(
        self,
        features: Float[Tensor, "clips bins columns"],
        lengths: Int[Tensor, " clips"],
    ) -> EncoderOutput:
        """Not one: raises `CheckpointError`."""
        raise CheckpointError("several encoders have states each; ask `outputs`.")

    def outputs(
        self,
        features: Float[Tensor, "clips bins columns"],
        lengths: Int[Tensor, " clips"],
    ) -> tuple[EncoderOutput, ...]:
        """The states of each part. Raises `AudioError` for features of other encoders."""
        wanted = [part.bins for part in self.parts]
        if features.ndim != 3 or features.shape[1] != sum(wanted):
            raise AudioError(
                f"Features {tuple(features.shape)}; expected [clips, {sum(wanted)} bins, frames], "
                f"the parts' {wanted} on one another. Use the feature extractor of this encoder."
            )
        made: list[EncoderOutput] = []
        first = 0
        for part, bins in zip(self.parts, wanted, strict=True):
            made += part.outputs(features[:, first : first + bins], lengths)
            first += bins
        return tuple(made)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The parts' names, which stand before those of their components."""
        return tuple(f"{name}_" for name in self.members)

    def components(self) -> dict[str, Component]:
        """Those of all parts."""
        return {
            f"{name}_{key}": replace(each, path=f"members.{name}.{each.path}")
            for name, part in zip(self.members, self.parts, strict=True)
            for key, each in part.components().items()
        }


def _names(config: SeveralConfig) -> list[str]:
    """The parts' kinds; a kind that is there before gets a number behind."""
    kinds = [str(part["kind"]) for part in config.parts]
    seen = [kinds[: i + 1].count(kind) for i, kind in enumerate(kinds)]
    return [kind if n == 1 else f"{kind}_{n}" for kind, n in zip(kinds, seen, strict=True)]

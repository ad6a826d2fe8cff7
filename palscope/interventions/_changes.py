"""What an intervention does to the values at an address."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope.errors import PalscopeError
from palscope.interventions._address import Address, Filler, Sound, Text
from palscope.interventions._capture import Captured, capture
from palscope.interventions._parts import Part


class Change:
    """New values from old ones; shapes are `[tokens, …]`, and `[heads, queries, keys]` of patterns.

    `continues` says whether tokens that decoding adds are changed too, where the address holds
    them (`Text()`).
    """

    continues = True

    def prepared(self, model: HookedAudioModel, address: Address) -> Change:
        """The change with what it needs from other runs; called before any hook is set."""
        del model, address
        return self

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """The values that take the place of `old`.

        `which` of the part's tokens they belong to, where they are not all.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Zero(Change):
    """Zero ablation. At `mel` zero is a value as any other and no silence; edit the waveform."""

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """Zeros."""
        return torch.zeros_like(old)


@dataclass(frozen=True)
class Scale(Change):
    """Multiply by `factor`."""

    factor: float

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """`old` times the factor."""
        return old * self.factor


@dataclass(frozen=True, eq=False)
class Add(Change):
    """Add a direction (steering): `direction` is `[width]` of the site, the same at every token."""

    direction: Tensor
    scale: float = 1.0

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """`old` plus the direction."""
        width = old.shape[-1]
        if self.direction.shape != (width,):
            raise PalscopeError(
                f"the direction has shape {tuple(self.direction.shape)}, but {part.hook} is "
                f"{width} wide; give a vector of that width."
            )
        return old + self.scale * self.direction.to(old)


@dataclass(frozen=True)
class Noise(Change):
    """Add Gaussian noise of `relative` times the standard deviation of the values there.

    The same seed gives the same noise at the same hook point and row.
    """

    relative: float = 1.0
    seed: int = 0

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """`old` plus noise."""
        # Of the place, not of the order in which hooks fire.
        place = zlib.crc32(f"{self.seed} {part.hook} {part.row} {tuple(old.shape)}".encode())
        generator = torch.Generator().manual_seed(place)
        noise = torch.randn(old.shape, generator=generator).to(old)
        return old + self.relative * old.detach().float().std().to(old) * noise


@dataclass(frozen=True, eq=False)
class Resample(Change):
    """Values of another run (activation patching, resample ablation).

    The address is resolved in the other run too, and must cover as many tokens there. Tokens that
    decoding adds keep their own values: the other run has none for them.

    With `at`, the values are those of another place of the other run: what stands in a later layer,
    put into an earlier one of a second run on the same inputs, is back-patching (Biran et al. 2024,
    arXiv 2406.12775). Tokens go one to one, in their order; one layer's values go into every layer
    that is addressed, and several into as many.

    Attributes:
        source: the inputs of the other run, or what `capture` took from it before.
        at: where values are taken in it; None for where they are put.
    """

    source: Mapping[str, Any] | Captured
    at: Address | None = None
    continues = False

    def prepared(self, model: HookedAudioModel, address: Address) -> Change:
        """With the other run's values.

        Raises:
            PalscopeError: `at` has other layers than go one to one, or stands at several hook
                points in one.
        """
        source, place = self.source, self.at or address
        taken = source if isinstance(source, Captured) else capture(model, source, place)
        values = taken.at(model, place)
        return _Replace(values, None if self.at is None else _taken_from(values, place, address))


@dataclass(frozen=True, eq=False)
class Mean(Change):
    """The mean over the tokens of reference runs (mean ablation).

    Every addressed token gets the mean over *all* tokens of its kind at the site, in every clip of
    every reference: of the stream that the address names, of all sound where it names none, or of
    text. Seconds, clips and strings of the address are those of one prompt. Each head has its own.
    """

    references: Sequence[Mapping[str, Any]]

    def prepared(self, model: HookedAudioModel, address: Address) -> Change:
        """With the mean."""
        if not self.references:
            raise PalscopeError("a mean needs one reference run at least.")
        if address.site == "pattern":
            raise PalscopeError("attention patterns differ in size; their mean is not defined.")
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for inputs in self.references:
            wide = _of_its_kind(model, inputs, address)
            for (hook, _), values in capture(model, inputs, *wide).values.items():
                sums[hook] = sums.get(hook, torch.zeros(())) + values.double().sum(0)
                counts[hook] = counts.get(hook, 0) + len(values)
        return _Fill({hook: total / counts[hook] for hook, total in sums.items()})


def _of_its_kind(
    model: HookedAudioModel, inputs: Mapping[str, Any], address: Address
) -> list[Address]:
    """The addresses of all tokens of `inputs` that are of the kind of the addressed ones."""
    tokens = address.key_tokens
    if not isinstance(tokens, Sound):
        kind = None if tokens is None else Filler() if isinstance(tokens, Filler) else Text()
        return [replace(address, tokens=kind)]
    layout = model.layout(inputs)
    clips = {layout.clip_row.count(row) for row in range(layout.stream.shape[0])}
    if len(clips) > 1 or not max(clips):
        raise PalscopeError(
            f"the rows of a reference have {sorted(clips)} clips; expected as many in each, at "
            "least one. Give its prompts one by one."
        )
    sounds = [Sound(stream=tokens.stream, clip=clip) for clip in range(max(clips))]
    return [replace(address, tokens=sound) for sound in sounds]


def _taken_from(values: Captured, place: Address, address: Address) -> dict[int | None, str]:
    """By the layer that is changed, the hook point from which it takes its values.

    Of one layer's values by None, for every layer.
    """
    hooks: dict[int | None, set[str]] = {}
    for part in values.parts.values():
        hooks.setdefault(part.layer, set()).add(part.hook)
    several = next((names for names in hooks.values() if len(names) > 1), None)
    if several is not None:
        raise PalscopeError(
            f"values of another place are taken from one hook point a layer; {place.site} has "
            f"{', '.join(sorted(several))} there. Name the stream that stands at one of them."
        )
    found = [(layer, names.pop()) for layer, names in hooks.items()]
    if len(found) == 1:
        return {None: found[0][1]}
    layers = address.layers or ()
    if len(layers) != len(found):
        raise PalscopeError(
            f"values of {len(found)} layers ({place.site}) cannot go into "
            f"{len(layers) or 'unnamed'} layers ({address.site}): name one layer to take from, or "
            "as many as are changed."
        )
    ordered = sorted(found, key=lambda each: -1 if each[0] is None else each[0])
    return {layer: hook for layer, (_, hook) in zip(layers, ordered, strict=True)}


@dataclass(frozen=True, eq=False)
class _Replace(Change):
    captured: Captured
    taken_from: Mapping[int | None, str] | None = None
    continues = False

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        if self.taken_from is None:
            return self.captured.for_part(part, old, which)
        hook = self.taken_from.get(None) or self.taken_from[part.layer]
        return self.captured.for_part(replace(part, hook=hook), old, which)


@dataclass(frozen=True, eq=False)
class _Fill(Change):
    values: dict[str, Tensor] = field(repr=False)

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        if part.hook not in self.values:
            raise PalscopeError(f"the references have no tokens at {part.hook} to average.")
        value = self.values[part.hook]
        value = value if part.heads is None else value[list(part.heads)]
        return value.to(old).expand_as(old)

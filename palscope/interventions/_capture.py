"""Values at an address, taken from a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._hooks.hooked import hooked
from palscope._queued import queued
from palscope._routing import TokenLayout
from palscope.errors import PalscopeError
from palscope.interventions._address import Address
from palscope.interventions._indexing import TokenIndexer
from palscope.interventions._parts import Part
from palscope.interventions._resolve import resolve

Key = tuple[str, int]
"""A hook point, and the row there: `Part.row`."""


@dataclass(frozen=True, eq=False)
class Captured:
    """Values of a run on `inputs`, by hook point and row; of every head, where there are heads.

    Attributes:
        values: `[tokens, …]` in the order of `parts`' columns (`[heads, queries, keys]` of
            patterns).
        parts: which tokens they belong to.
        layout: of `inputs`.
    """

    inputs: Mapping[str, Any]
    values: dict[Key, Tensor]
    parts: dict[Key, Part]
    layout: TokenLayout

    def at(self, model: HookedAudioModel, address: Address) -> Captured:
        """What was captured at `address`, which must lie within the captured addresses.

        Raises what `resolve` raises, and `PalscopeError` when it was not captured.
        """
        values: dict[Key, Tensor] = {}
        parts: dict[Key, Part] = {}
        for part in resolve(model, self.inputs, address, self.layout).parts:
            key = (part.hook, part.row)
            have = self.parts.get(key)
            if have is None or not _holds(have, part):
                raise PalscopeError(f"{address.site} was not captured at {part.hook}, all of it.")
            value = self.values[key]
            tokens = queued(_places_of(part.columns, have.columns), value.device)
            heads = slice(None) if part.heads is None else list(part.heads)
            if part.queries is None:
                value = value[tokens]
                value = value if part.heads is None else value[:, heads]
            else:
                assert have.queries is not None
                queries = _places_of(part.queries, have.queries)
                value = value[heads][:, queued(queries, value.device)][..., tokens]
            values[key], parts[key] = value, part
        return Captured(self.inputs, values, parts, self.layout)

    def for_part(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """The values that stand for `old`, which has as many tokens.

        They are of the same row, or of the only one where the source has but one; before the
        decoder, of the clip with the same number there.

        Args:
            which: the tokens of the part that `old` holds, where it does not hold all.

        Raises:
            PalscopeError: nothing was captured there, or for another number of tokens.
        """
        row, clip = part.prompt
        alone = self.layout.stream.shape[0] == 1
        found = self._by_prompt.get((part.hook, 0 if alone else row, clip))
        if found is None:
            raise PalscopeError(
                f"the source run holds nothing for {part.hook}, row {row}. It has "
                f"{self.layout.stream.shape[0]} row(s): give as many as the target's, or one."
            )
        if which is not None and len(found) == len(part.columns):
            found = found[queued(which, found.device)]
        if found.shape != old.shape:
            raise PalscopeError(
                f"{part.hook}: the source has values of shape {tuple(found.shape)}, but "
                f"{tuple(old.shape)} are to be replaced. Source and target must cover as many "
                "tokens: use clips of one length and prompts of one text."
            )
        return found.to(old)

    @cached_property
    def _by_prompt(self) -> dict[tuple[str, int, int], Tensor]:
        """The values by hook point, row of the batch and number of the clip in it."""
        return {(key[0], *part.prompt): self.values[key] for key, part in self.parts.items()}


def _holds(have: Part, part: Part) -> bool:
    """Whether values at one part hold those at another, of the same hook point and row."""
    pairs = [(part.columns, have.columns)]
    if part.queries is not None and have.queries is not None:
        pairs.append((part.queries, have.queries))
    return all(bool(torch.isin(wanted, held).all()) for wanted, held in pairs)


def _places_of(wanted: Tensor, held: Tensor) -> Tensor:
    """Where each of `wanted` stands in `held`, which has them all."""
    order = held.argsort()
    return order[torch.searchsorted(held[order], wanted.contiguous())]


def capture(model: HookedAudioModel, inputs: Mapping[str, Any], *addresses: Address) -> Captured:
    """Values at `addresses` in a run on `inputs`, under the model's current route.

    Every head is captured, whatever the addresses name; of several patterns of one layer, every
    query of any of them with every key of any of them. Raises what `resolve` raises, and
    `HookError` when a hook point did not fire.
    """
    layout = model.layout(inputs)
    parts: dict[Key, Part] = {}
    for address in addresses:
        for part in resolve(model, inputs, address, layout).parts:
            key = (part.hook, part.row)
            part = replace(part, heads=None)
            parts[key] = _both(parts[key], part) if key in parts else part
    values = capture_parts(model, inputs, list(parts.values()))
    return Captured(inputs, dict(zip(parts, values, strict=True)), parts, layout)


def _both(one: Part, other: Part) -> Part:
    """The tokens of two parts of one hook point and row."""
    columns = torch.cat([one.columns, other.columns]).unique()
    if one.queries is None or other.queries is None:
        return replace(other, columns=columns)
    queries = torch.cat([one.queries, other.queries]).unique()
    return replace(other, columns=columns, queries=queries)


def whole_pass(model: HookedAudioModel, inputs: Mapping[str, Any]) -> None:
    """A run on `inputs`, of which nothing but what hooks take is kept."""
    model(dict(inputs), logits_to_keep=1)


def capture_parts(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    parts: Sequence[Part],
    run: Callable[[HookedAudioModel, Mapping[str, Any]], Any] = whole_pass,
) -> list[Tensor]:
    """Values of each of `parts` in a run on `inputs`.

    Args:
        model: under its current route.
        inputs: what it is called with.
        parts: which values.
        run: calls the model; it may end behind the last of the parts.

    Raises `HookError` when a hook point did not fire, and `PalscopeError` when tokens of a part do
    not run, because a cache that `inputs` go on from holds them.
    """
    places = TokenIndexer(model, inputs, model.layout(inputs).width)
    pieces: list[list[Tensor]] = [[] for _ in parts]
    by_hook: dict[str, list[int]] = {}
    for number, part in enumerate(parts):
        by_hook.setdefault(part.hook, []).append(number)

    def hook_of(numbers: list[int]) -> Any:
        def keep(tensor: Tensor, hook: Any) -> None:
            del hook
            for number in numbers:
                found = places.find(parts[number], parts[number].row, tensor)
                if found is not None:  # of a clip's windows, which come in order, each has its own
                    pieces[number].append(tensor[found.index].detach().clone())

        return keep

    hooks = {name: hook_of(numbers) for name, numbers in by_hook.items()}
    with torch.no_grad(), hooked(model, hooks):
        run(model, inputs)
    for part, found in zip(parts, pieces, strict=True):
        tokens = -1 if part.queries is not None else 0
        if sum(each.shape[tokens] for each in found) != len(part.columns):
            raise PalscopeError(
                f"{part.hook}: of {len(part.columns)} tokens not all run in a call on these "
                "inputs: their cache (past_key_values) holds the others. Give the whole prompt."
            )
    return [torch.cat(found) for found in pieces]

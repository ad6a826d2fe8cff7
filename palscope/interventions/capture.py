"""Values at an address, taken from a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from palscope.errors import PalscopeError
from palscope.hooks import HookedAudioModel
from palscope.hooks.listening import listening
from palscope.interventions.address import Address
from palscope.interventions.places import Places
from palscope.interventions.resolve import Part, resolve
from palscope.routing import TokenLayout


@dataclass(frozen=True, eq=False)
class Captured:
    """Values of a run on `inputs`, by hook point and row; of every head, where there are heads.

    Attributes:
        values: `[tokens, …]` in the order of the tokens (`[heads, queries, keys]` of patterns).
        columns: the tokens that they belong to, as in `Part.columns`.
        layout: of `inputs`.
    """

    inputs: Mapping[str, Any]
    values: dict[tuple[str, int], Tensor]
    columns: dict[tuple[str, int], Tensor]
    layout: TokenLayout

    def at(self, model: HookedAudioModel, address: Address) -> Captured:
        """What was captured at `address`, which must lie within the captured addresses.

        Raises what `resolve` raises, and `PalscopeError` when it was not captured.
        """
        values: dict[tuple[str, int], Tensor] = {}
        columns: dict[tuple[str, int], Tensor] = {}
        for part in resolve(model, self.inputs, address, self.layout).parts:
            key = (part.hook, part.row)
            have = self.columns.get(key)
            if have is None or not bool(torch.isin(part.columns, have).all()):
                raise PalscopeError(f"{address.site} was not captured at {part.hook}, all of it.")
            value = self.values[key]
            if part.axis == "pattern":
                if not torch.equal(have, part.columns):
                    raise PalscopeError("capture a pattern at the very address that is patched.")
                value = value if part.heads is None else value[list(part.heads)]
            else:
                value = value[torch.isin(have, part.columns).nonzero()[:, 0]]
                value = value if part.heads is None else value[:, list(part.heads)]
            values[key], columns[key] = value, part.columns
        return Captured(self.inputs, values, columns, self.layout)

    def for_part(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        """The values that stand for `old`, which has as many tokens.

        Args:
            which: the tokens of the part that `old` holds, where it does not hold all.

        Raises:
            PalscopeError: nothing was captured there, or for another number of tokens.
        """
        found = self.values.get((part.hook, part.row), self.values.get((part.hook, 0)))
        if found is None:
            raise PalscopeError(f"the source run holds nothing for {part.hook}, row {part.row}.")
        if which is not None and len(found) == len(part.columns):
            found = found[which.to(found.device)]
        if found.shape != old.shape:
            raise PalscopeError(
                f"{part.hook}: the source has values of shape {tuple(found.shape)}, but "
                f"{tuple(old.shape)} are to be replaced. Source and target must cover as many "
                "tokens: use clips of one length and prompts of one text."
            )
        return found.to(old)


def capture(model: HookedAudioModel, inputs: Mapping[str, Any], *addresses: Address) -> Captured:
    """Values at `addresses` in a run on `inputs`, under the model's current route.

    Every head is captured, whatever the addresses name. Raises what `resolve` raises, and
    `HookError` when a hook point did not fire.
    """
    layout = model.layout(inputs)
    parts: dict[tuple[str, int], Part] = {}
    for address in addresses:
        for part in resolve(model, inputs, address, layout).parts:
            key = (part.hook, part.row)
            part = replace(part, heads=None)
            if key in parts:
                both = torch.cat([parts[key].columns, part.columns]).unique()
                part = replace(part, columns=both)
            parts[key] = part
    columns = {key: part.columns for key, part in parts.items()}
    values = capture_parts(model, inputs, list(parts.values()))
    return Captured(inputs, values, columns, layout)


def capture_parts(
    model: HookedAudioModel, inputs: Mapping[str, Any], parts: Sequence[Part]
) -> dict[tuple[str, int], Tensor]:
    """Values of `parts` in a run on `inputs`."""
    places = Places(model, inputs)
    pieces: dict[tuple[str, int], list[Tensor]] = {}

    def take(part: Part, tensor: Tensor) -> None:
        found = places.find(part, part.row, tensor)
        if found is not None:
            value = tensor[found.index].detach().clone()
            pieces.setdefault((part.hook, part.row), []).append(value)

    by_hook: dict[str, list[Part]] = {}
    for part in parts:
        by_hook.setdefault(part.hook, []).append(part)

    def listener(found: list[Part]) -> Any:
        def listen(tensor: Tensor, hook: Any) -> None:
            del hook
            for part in found:
                take(part, tensor)

        return listen

    hooks = {name: listener(found) for name, found in by_hook.items()}
    with torch.no_grad(), listening(model, hooks):
        model(dict(inputs), logits_to_keep=1)
    return {key: torch.cat(values) for key, values in pieces.items()}

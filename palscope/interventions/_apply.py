"""Interventions, and the block within which they hold."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from palscope._finite import squares_finite
from palscope._hooks import HookedAudioModel
from palscope._hooks.hooked import hooked
from palscope._routing import Route, TokenLayout
from palscope.errors import HookError, PalscopeError
from palscope.interventions._address import Address
from palscope.interventions._changes import Change
from palscope.interventions._indexing import TokenIndexer
from palscope.interventions._knockout import EdgeCuts, Knockout
from palscope.interventions._parts import OF_CLIPS, Part, Resolved
from palscope.interventions._resolve import resolve


@dataclass(frozen=True)
class Patch:
    """Change the values at an address."""

    address: Address
    change: Change


Intervention = Patch | Knockout
"""What acts at an address."""


@dataclass(frozen=True)
class Reroute:
    """Given among interventions: the route that they are resolved and act under."""

    route: Route


@dataclass(frozen=True)
class Condition:
    """Interventions, and the route that they are under."""

    route: Route
    interventions: tuple[Intervention, ...]

    @classmethod
    def of(cls, model: HookedAudioModel, given: Iterable[Intervention | Reroute]) -> Condition:
        """What was given: under the model's current route where no `Reroute` is among it.

        Of several the last holds.
        """
        route, interventions = model.current_route, list[Intervention]()
        for each in given:
            if isinstance(each, Reroute):
                route = each.route
            else:
                interventions.append(each)
        return cls(route, tuple(interventions))

    @contextmanager
    def bound(
        self, model: HookedAudioModel, inputs: Mapping[str, Any]
    ) -> Generator[list[Bound], None, None]:
        """Within the block the route is taken, under which these are the interventions, bound."""
        with ExitStack() as stack:
            if self.route != model.current_route:
                stack.enter_context(model.route(self.route))
            yield self.bind(model, inputs)

    def bind(
        self, model: HookedAudioModel, inputs: Mapping[str, Any], layout: TokenLayout | None = None
    ) -> list[Bound]:
        """The interventions, bound under the model's current route, as by `bind`."""
        return [bind(model, inputs, each, layout) for each in self.interventions]


@dataclass(frozen=True)
class Edit:
    """A change to one part, which stands in `row` of the batch (for encoder parts: its clip)."""

    part: Part
    row: int
    change: Change


@contextmanager
def intervene(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    interventions: Iterable[Intervention | Reroute],
) -> Generator[tuple[Resolved, ...], None, None]:
    """Within the block, calls of the model on `inputs` undergo `interventions`.

    A call on other inputs is refused, for what was addressed stands elsewhere in them. The same are
    inputs of the same tokens and padding with clips of the same lengths: every address names the
    same tokens in them, whatever the clips sound like. What was generated may stand behind.

    They hold for a forward pass, `generate` (the prompt and every decoding step), `run_with_cache`
    and any measure, and act in the order given; what `Resample` and `Mean` take from other runs
    comes from runs without them, under the same route. Gradients pass through. The model is as it
    was afterwards, errors or not.

    Args:
        inputs: what the model will be called with: addresses are resolved in it.

    Yields:
        What each `Patch` and `Knockout` covers, in their order.

    Raises:
        PalscopeError: an address cannot be resolved, or source and target differ in tokens.
        HookError: a call is on other inputs, or on another route; or an intervention took no
            effect: within the block nothing of it fired.
    """
    with (
        Condition.of(model, interventions).bound(model, inputs) as bound,
        in_force(model, inputs, [(each, 0) for each in bound]) as cuts,
    ):
        yield tuple(each.resolved for each in bound)
        cuts.check()


@dataclass(frozen=True)
class Bound:
    """A patch or a knockout with its exact tokens and, of a patch, its prepared change."""

    resolved: Resolved
    change: Change | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that it acts on."""
        return self.resolved.parts


def bind(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    intervention: Intervention,
    layout: TokenLayout | None = None,
) -> Bound:
    """Resolve an intervention under the current route, and run what it takes values from.

    `layout` of `inputs`, where it is known already.
    """
    resolved = resolve(model, inputs, intervention.address, layout)
    if isinstance(intervention, Knockout):
        return Bound(resolved, None)
    change = intervention.change.prepared(model, intervention.address)
    if not change.continues:
        parts = tuple(
            replace(part, onwards=False, queries_onwards=False) for part in resolved.parts
        )
        resolved = replace(resolved, parts=parts)
    return Bound(resolved, change)


@contextmanager
def in_force(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    placed: Sequence[tuple[Bound, int]],
    copies: int = 1,
    *,
    interleaved: bool = False,
) -> Generator[EdgeCuts, None, None]:
    """Within the block, what was bound to `inputs` acts on calls of the model.

    Args:
        placed: what was bound, and the copy of `inputs` on which it acts.
        copies: the calls hold so many copies of `inputs`, one behind the other.
        interleaved: or all copies of the first prompt, then those of the second, and so on, as a
            cache repeats them. Nothing before the decoder may act there.

    Yields:
        The knockouts' edges, which count what they cut.

    Raises:
        HookError: a call is on other inputs or another route, or a patch did not find all
            of its tokens.
    """
    layout = model.layout(inputs)
    rows, clips = layout.stream.shape[0], len(layout.clip_row)
    places = TokenIndexer(model, inputs, layout.width, copies)
    edits: dict[str, list[Edit]] = {}
    cuts: list[tuple[Part, int]] = []
    for each, copy in placed:
        for part in each.parts:
            row = part.row + copy * (clips if part.axis in OF_CLIPS else rows)
            if interleaved:
                row = part.row * copies + copy
            if each.change is None:
                cuts.append((part, row))
            else:
                edits.setdefault(part.hook, []).append(Edit(part, row, each.change))
    done: dict[int, Tensor] = {}

    def editor(found: list[Edit]) -> Any:
        def edit(tensor: Tensor, hook: Any) -> Tensor | None:
            del hook
            return _edited(tensor, found, places, done)

        return edit

    cut = EdgeCuts(cuts, layout.width, model.cfg.n_heads)
    with ExitStack() as stack:
        if placed:
            made_for = ExpectedInputs(model, layout, model.current_route, copies, interleaved)
            stack.enter_context(model.model.expecting(made_for))
        if cuts:
            stack.enter_context(model.model.cutting(cut))
        stack.enter_context(hooked(model, {name: editor(e) for name, e in edits.items()}))
        yield cut
    each_edit = [edit for found in edits.values() for edit in found]
    missed = [e.part for e in each_edit if id(e) not in done or not bool(done[id(e)].all())]
    if missed:
        raise HookError(
            f"interventions at {sorted({part.hook for part in missed})} did not find all of their "
            "tokens in the calls within the block. Was the model called with all of the inputs "
            "that they were made for, or does a cache hold some?"
        )


@dataclass(frozen=True)
class ExpectedInputs:
    """What calls within a block must be on: `copies` of the inputs with this layout, this route."""

    model: HookedAudioModel
    layout: TokenLayout
    route: Route
    copies: int
    interleaved: bool

    def __call__(self, called: TokenLayout) -> None:
        """Check a call's layout. Raises `HookError` on other inputs, or another route."""
        if self.model.current_route != self.route:
            raise HookError(
                "the model took another route than the interventions were resolved under. Change "
                "the route before the block, or by Reroute among them."
            )
        rows = self.layout.stream.shape[0]
        if called.stream.shape[0] != rows * self.copies:
            raise HookError(
                f"the call has {called.stream.shape[0]} rows, but the interventions were made for "
                f"{rows * self.copies}. Beams and other repeats are not supported."
            )
        other = called.differs_from(self.layout, interleaved=self.interleaved)
        if other is not None:
            raise HookError(
                "the model is called with other inputs than the interventions were made for: in "
                f"row {other[0]}, {other[1]}. Make them for these: intervene(model, inputs, …)."
            )


def _edited(
    tensor: Tensor, edits: Sequence[Edit], places: TokenIndexer, done: dict[int, Tensor]
) -> Tensor | None:
    """The tensor with its edits, if it holds a token of any; notes in `done` which it holds."""
    new: Tensor | None = None
    for edit in edits:
        found = places.find(edit.part, edit.row, tensor)
        if found is None:
            continue
        new = tensor.clone() if new is None else new
        old = new[found.index]
        value = edit.change(edit.part, old, found.which)
        if value.shape != old.shape:
            raise PalscopeError(
                f"{edit.part.hook}: the change made {tuple(value.shape)} of {tuple(old.shape)}."
            )
        value = value.to(new)
        if not squares_finite(value):
            raise PalscopeError(
                f"{edit.part.hook}: {type(edit.change).__name__} made values that hold NaN or "
                f"infinity, or are too large to be normed, in {new.dtype}. Give smaller ones, or "
                "load the model with dtype=torch.float32."
            )
        new[found.index] = value
        found_so_far = done.setdefault(
            id(edit), torch.zeros(len(edit.part.columns), dtype=torch.bool)
        )
        found_so_far[slice(None) if found.which is None else found.which.cpu()] = True
    return new

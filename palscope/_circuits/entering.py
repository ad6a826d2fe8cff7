"""What the encoder makes of its tokens: sound, as it enters the decoder.

Between a dictionary inside the encoder and the decoder lie the rest of the encoder, the connector
and the projectors; for the graph they are one step, from all of the encoder's tokens to each group
of sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.features import FeaturePlace
from palscope._circuits.graph import Graph
from palscope._circuits.groups import PAST, Group
from palscope._circuits.observed import Observed
from palscope._circuits.writes import entry, entry_places
from palscope._hooks import HookedAudioModel
from palscope._hooks.hooked import hooked
from palscope.interventions._cells import copies_of
from palscope.interventions._hook_places import place_of
from palscope.measures._gradients import frozen

_AT_ONCE = 16
"""Copies of a prompt that share a pass."""


@dataclass(eq=False)
class Below:
    """What stands below the decoder, in copies of one prompt's clip.

    Attributes:
        tokens: of the encoder, at the features' place.
        clip: as it enters the encoder, whatever its layout: what comes past the features is of it.
    """

    tokens: Float[Tensor, "copies tokens d_in"]
    clip: Float[Tensor, "copies ..."]

    @classmethod
    def of(cls, place: FeaturePlace, run: Observed, copies: int = 1) -> Below:
        """As in a run."""
        tokens, clip = run.values[place.hook_point], run.inputs["input_features"][0]
        return cls(*(each.expand(copies, *each.shape).clone() for each in (tokens, clip)))

    def between(self, other: Below, share: float) -> Below:
        """So far on the way to another."""
        return Below(
            self.tokens + share * (other.tokens - self.tokens),
            self.clip + share * (other.clip - self.clip),
        )

    def at(self, group: Group) -> Float[Tensor, "copies tokens width"]:
        """A group's part."""
        if group.stream == PAST:
            return self.clip.flatten(1)[:, None]
        return self.tokens[:, list(group.columns)]

    def add(self, group: Group, change: Float[Tensor, "copies tokens width"]) -> None:
        """Move a group's part."""
        if group.stream == PAST:
            self.clip += change.to(self.clip).view_as(self.clip)
        else:
            self.tokens[:, list(group.columns)] += change.to(self.tokens)


@dataclass(frozen=True, eq=False)
class Entering:
    """The sound of one prompt as a function of what stands below the decoder.

    Attributes:
        place: of the dictionary in the encoder.
        inputs: of the prompt; its text alone plays a part.
    """

    model: HookedAudioModel
    graph: Graph
    place: FeaturePlace
    inputs: Mapping[str, Any]

    @classmethod
    def of(cls, model: HookedAudioModel, graph: Graph, run: Observed) -> Entering | None:
        """Of a graph with features in the encoder; None of any other."""
        place = graph.features_of(None)
        return None if place is None else cls(model, graph, place, run.inputs)

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """The nodes of sound that enters."""
        nodes = enumerate(self.graph.nodes)
        return tuple(number for number, node in nodes if node.kind == "sound")

    @cached_property
    def _above(self) -> int:
        """The first layer into which no sound enters any more, but what entered before."""
        nodes = self.graph.nodes
        return 1 + max(entry(self.graph, nodes[number])[0] for number in self.nodes)

    @torch.no_grad()
    def sounds(self, below: Below) -> dict[int, Float[Tensor, "copies _tokens d_model"]]:
        """What each node of sound is, of each copy."""
        found: dict[int, list[Tensor]] = {node: [] for node in self.nodes}
        for first in range(0, len(below.tokens), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            for node, made in self._run(Below(below.tokens[some], below.clip[some])).items():
                found[node].append(made)
        return {node: torch.cat(parts) for node, parts in found.items()}

    def gradients(
        self, below: Below, of_sound: Mapping[int, Float[Tensor, "_tokens d_model"]]
    ) -> dict[int, Below]:
        """The gradients for what stands below, by way of each node of sound by itself.

        Args:
            below: of one copy.
            of_sound: the gradient for what a node is; of other nodes it is 0.
        """
        leaves = [each.detach().clone().requires_grad_() for each in (below.tokens, below.clip)]
        with torch.enable_grad(), frozen(self.model):
            made = self._run(Below(*leaves))
            return {
                node: Below(
                    *torch.autograd.grad(
                        made[node][0],
                        leaves,
                        of_sound[node].to(made[node])
                        if node in of_sound
                        else torch.zeros_like(made[node][0]),
                        retain_graph=True,
                        materialize_grads=True,  # nothing may come past the tokens
                    )
                )
                for node in self.nodes
            }

    def _run(self, below: Below) -> dict[int, Float[Tensor, "copies _tokens d_model"]]:
        """By node, the sound of some copies; one pass."""
        hooks = {node: entry_places(self.model, self.graph, node) for node in self.nodes}
        kept: dict[str, Tensor] = {}

        def keep(tensor: Tensor, hook: Any) -> None:
            kept[str(hook.name)] = tensor

        copies = copies_of(self.inputs, len(below.tokens)) | {"input_features": below.clip}
        seen = {name: keep for name, _ in hooks.values()}
        with placed(self.model, self.place, below.tokens), hooked(self.model, seen):
            self.model(copies, stop_at_layer=self._above)
        return {node: kept[name][:, at] for node, (name, at) in hooks.items()}


def placed(
    model: HookedAudioModel, place: FeaturePlace, tokens: Float[Tensor, "copies tokens d_in"]
) -> AbstractContextManager[Any]:
    """Within the block, the encoder's tokens of each copy's clip are these."""
    (part,) = place_of(model, place.hook_point).parts
    encoder = model.model.encoder.parts[part.encoder]

    def put(tensor: Tensor, hook: Any) -> Tensor:
        del hook
        passing = encoder.passing
        assert passing is not None
        return tokens[list(passing.clips)].to(tensor).view_as(tensor)

    hooks: dict[str, Callable[..., Tensor]] = {place.hook_point: put}
    return hooked(model, hooks)

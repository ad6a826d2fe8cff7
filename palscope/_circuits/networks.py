"""A feed-forward network's nodes at a group of positions: itself, or its features and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._circuits.features import FeaturePlace
from palscope._circuits.graph import Graph
from palscope._hooks import HookedAudioModel
from palscope._models.families import raw

_AT_ONCE = 64
"""Features whose gradients are pulled back together."""


@dataclass(frozen=True, eq=False)
class Network:
    """The nodes of one layer's network at one group, the network's own first."""

    model: HookedAudioModel
    graph: Graph
    layer: int
    group: int

    @cached_property
    def place(self) -> FeaturePlace | None:
        """The dictionary whose latents are nodes here."""
        return self.graph.features_of(self.layer) if self.latents else None

    @cached_property
    def latents(self) -> tuple[int, ...]:
        """Those that are nodes, in order."""
        place = self.graph.features_of(self.layer)
        return () if place is None else place.latents.get(self.graph.groups[self.group].name, ())

    def written(
        self, states: Float[Tensor, "*rows tokens d_model"]
    ) -> Float[Tensor, "*rows nodes tokens d_model"]:
        """What each node writes of these states of the residual stream."""
        out, acts = self._run(states)
        return self._split(out, acts)

    def written_of(
        self, states: Float[Tensor, "kinds tokens d_model"], which: Int[Tensor, "nodes"]
    ) -> Float[Tensor, "nodes tokens d_model"]:
        """What each node writes of its own state among several: `states[which[node]]`."""
        out, acts = self._run(states)
        if self.place is None:
            return out[which]
        rest = self._split(out[which[:1]], acts[which[:1]])[0, :1]
        own = acts[which[1:], :, torch.arange(len(self.latents))]
        return torch.cat([rest, own[..., None] * self.place.rows(self.latents, own)[:, None]])

    def parts_of(
        self,
        out: Float[Tensor, "tokens d_model"],
        states: Float[Tensor, "tokens d_model"],
    ) -> Float[Tensor, "nodes tokens d_model"]:
        """What each node writes, where the whole network is known to write `out`."""
        if self.place is None:
            return out[None]
        return self._split(out, self._run(states)[1].to(out))

    def gradients(
        self,
        states: Float[Tensor, "tokens d_model"],
        of_output: Float[Tensor, "tokens d_model"],
        whole: Float[Tensor, "tokens d_model"],
    ) -> Float[Tensor, "nodes tokens d_model"]:
        """Each node's part of the gradient for the state that enters.

        Args:
            states: that enter.
            of_output: the gradient for what the network writes.
            whole: the gradient for the states, by way of the network.
        """
        if self.place is None:
            return whole[None]
        rows = self.place.rows(self.latents, of_output)
        found: list[Tensor] = []
        with torch.enable_grad():
            leaf = states.detach().clone().requires_grad_()
            acts = self._run(leaf)[1]
            for first in range(0, len(self.latents), _AT_ONCE):
                some = rows[first : first + _AT_ONCE]
                here = torch.arange(len(some))
                wanted = acts.new_zeros(len(some), *acts.shape)
                wanted[here, :, first + here] = (some @ of_output.mT).to(acts)
                (made,) = torch.autograd.grad(
                    acts, leaf, wanted, is_grads_batched=True, retain_graph=True
                )
                found.append(made)
        mine = torch.cat(found)
        return torch.cat([(whole - mine.sum(0))[None], mine])

    def _run(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """What the whole network writes of states, and the latents."""
        normed, out = entering_and_written(self.model, self.layer, states)
        if self.place is None:
            return out, out[..., :0]
        return out, self.place.acts(normed if self.place.of_input else out, self.latents)

    def _split(self, out: Tensor, acts: Tensor) -> Tensor:
        if self.place is None:
            return out[..., None, :, :]
        return self.place.split(out, acts, self.latents)


def fed(
    model: HookedAudioModel, layer: int, states: Float[Tensor, "*rows tokens d_model"]
) -> Float[Tensor, "*rows tokens d_model"]:
    """What a feed-forward network writes, with a residual multiplier (Granite)."""
    return entering_and_written(model, layer, states)[1]


def entering_and_written(
    model: HookedAudioModel, layer: int, states: Float[Tensor, "*rows tokens d_model"]
) -> tuple[Tensor, Tensor]:
    """What enters a network behind its norm, and what it writes (`fed`)."""
    block: Any = model.blocks[layer]
    family_layer = raw(model.model.decoder.layers[layer])
    normed = raw(block.ln2).forward(states)
    if hasattr(family_layer, "mlp"):
        out = raw(family_layer.mlp)(normed)
        out = out[0] if isinstance(out, tuple) else out
    else:
        hidden = family_layer.activation_fn(raw(family_layer.fc1)(normed))
        out = raw(family_layer.fc2)(hidden)
    return normed, out * residual_multiplier(model, layer)


def residual_multiplier(model: HookedAudioModel, layer: int) -> float:
    """What a sublayer's output is multiplied by (Granite)."""
    return getattr(raw(model.model.decoder.layers[layer]), "residual_multiplier", 1.0)

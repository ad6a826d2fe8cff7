"""Weights of a decoder's linear maps, by the names that its family gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.local import wide
from palscope._models.adapted import effective_weight
from palscope._models.families import raw
from palscope.errors import PalscopeError


@dataclass(frozen=True, eq=False)
class Linear:
    """A module's linear map in float32 at least, adapters included, or some rows of it.

    What is less is turned anew whenever it is asked for, and never held.
    """

    module: Any
    rows: slice

    @property
    def weight(self) -> Float[Tensor, "outputs inputs"]:
        return wide(effective_weight(self.module).detach()[self.rows])

    @property
    def bias(self) -> Float[Tensor, "outputs"]:
        """Zeros where there is none."""
        plain = getattr(self.module, "base_layer", self.module)
        given: Any = plain.bias
        if given is None:
            given = plain.weight.new_zeros(plain.out_features)
        return wide(given.detach()[self.rows])

    def made_of(self, entering: Tensor) -> Tensor:
        """What comes out, bias included."""
        return wide(entering) @ self.weight.T + self.bias


def linear(projection: Any, rows: slice = slice(None)) -> Linear:
    """A module's map. Raises `PalscopeError` where its weights are quantised."""
    module = raw(projection)
    effective_weight(module)
    return Linear(module, rows)


def values_of(attention: Any) -> Linear:
    """What makes values, of an attention with its own projection for them or one for all three."""
    if hasattr(attention, "v_proj"):
        return linear(attention.v_proj)
    shared = attention.config.num_key_value_heads
    return linear(attention.qkv_proj, slice(-shared * attention.head_dim, None))


@dataclass(frozen=True, eq=False)
class Network:
    """A feed-forward network.

    Attributes:
        up: makes neurons' inputs.
        gate: makes their gates; None without any.
        down: makes what the network writes of what they put out.
        act: of the gate, or of neurons that have none.
    """

    up: Linear
    gate: Linear | None
    down: Linear
    act: Callable[[Tensor], Tensor]

    def factors(
        self, normed: Float[Tensor, "tokens d_model"]
    ) -> tuple[Float[Tensor, "tokens neurons"], Float[Tensor, "tokens neurons"]]:
        """Neurons' inputs, and what each is multiplied by.

        Without gates that is the ratio of output and input. A neuron whose input is 0 puts out
        nothing, and its ratio is 0.
        """
        inputs = self.up.made_of(normed)
        if self.gate is not None:
            return inputs, self.act(self.gate.made_of(normed))
        return inputs, torch.where(inputs == 0, 0.0, self.act(inputs) / inputs)


def network_of(layer: Any) -> Network:
    """A layer's feed-forward network.

    Raises:
        PalscopeError: it is of a kind that is not known, a mixture of experts say, or quantised.
    """
    parts: Any = raw(layer.mlp) if hasattr(layer, "mlp") else layer
    act: Any = getattr(parts, "act_fn", getattr(parts, "activation_fn", None))
    names = set(parts._modules)
    if {"gate_proj", "up_proj", "down_proj"} <= names:
        up, gate, down = map(linear, (parts.up_proj, parts.gate_proj, parts.down_proj))
        return Network(up, gate, down, act)
    if {"gate_up_proj", "down_proj"} <= names:
        half = raw(parts.down_proj).in_features
        up, gate = (linear(parts.gate_up_proj, rows) for rows in (slice(half, None), slice(half)))
        return Network(up, gate, linear(parts.down_proj), act)
    if {"fc1", "fc2"} <= names:
        half = raw(parts.fc2).in_features
        if raw(parts.fc1).out_features == half:
            return Network(linear(parts.fc1), None, linear(parts.fc2), act)
        up, gate = (linear(parts.fc1, rows) for rows in (slice(half), slice(half, None)))
        return Network(up, gate, linear(parts.fc2), act)
    raise PalscopeError(
        f"the feed-forward network of this decoder is a {type(parts).__name__}, in which neurons "
        "are not known to add up (of experts, say, others run for other tokens). Attribution "
        "graphs know networks with gates (gate_proj, up_proj, down_proj) and plain ones (fc1, fc2)."
    )

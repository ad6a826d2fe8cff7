"""Stages with all that is not linear in them held as it was in one run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from palscope._circuits.attribution.weights import Linear, Network, linear, network_of, values_of
from palscope._circuits.graph import Graph
from palscope._circuits.local import (
    Attention,
    attention_weights,
    heads_of,
    per_head,
    wide,
)
from palscope._circuits.networks import residual_multiplier
from palscope._circuits.observed import Observed
from palscope._hooks import HookedAudioModel
from palscope._models.families import raw
from palscope.measures._vocabulary import norm_gain


@dataclass(frozen=True, eq=False)
class HeldNorm:
    """A norm at its scale of one run; where there is none, `gain` is 1.

    Attributes:
        gain: what each dimension is multiplied by.
        centred: whether the mean is taken away before (LayerNorm).
        bias: what is added behind.
    """

    gain: Float[Tensor, "tokens d_model"]
    centred: bool
    bias: Float[Tensor, "d_model"]

    @classmethod
    def of(cls, norm: Any, states: Float[Tensor, "tokens d_model"]) -> HeldNorm:
        """Of a module, or None, in the run in which these states entered it."""
        states = wide(states)
        nothing = torch.zeros_like(states[0])
        if norm is None:
            return cls(torch.ones_like(states), False, nothing)
        if not isinstance(norm, nn.LayerNorm):
            return cls(norm_gain(norm, states), False, nothing)
        given: tuple[Any, Any] = (norm.weight, norm.bias)  # either may be None
        weight, bias = (None if each is None else wide(each.detach()) for each in given)
        scale = (states.var(-1, keepdim=True, correction=0) + norm.eps).rsqrt()
        gain = scale.expand_as(states) if weight is None else scale * weight
        return cls(gain, True, nothing if bias is None else bias)

    def at(self, tokens: Int[Tensor, "chosen"]) -> HeldNorm:
        """Of some of the tokens."""
        return replace(self, gain=self.gain[tokens])

    def forward(self, states: Float[Tensor, "*copies tokens d_model"]) -> Tensor:
        """What it makes of a summand of the states; its bias is a summand of its own."""
        return self._centre(states) * self.gain

    def pulled(self, wanted: Float[Tensor, "*copies tokens d_model"]) -> Tensor:
        """What is wanted of its input, by what is wanted of its output."""
        return self._centre(wanted * self.gain)

    def _centre(self, states: Tensor) -> Tensor:
        return states - states.mean(-1, keepdim=True) if self.centred else states


@dataclass(frozen=True, eq=False)
class HeldHeads:
    """A stage's heads, their attention held: linear in what their values are made of.

    Attributes:
        own: which keys are of sound as it entered; the others are of the residual stream.
        value: what makes values, one key-value head after another, of normed states.
        output: the output projection.
    """

    attention: Attention
    own: Bool[Tensor, "keys"]
    norm: HeldNorm
    pattern: Float[Tensor, "heads queries keys"]
    value: Linear
    output: Linear
    scale: float

    @property
    def columns(self) -> Int[Tensor, "queries"]:
        """Where heads write."""
        return self.attention.running

    @property
    def keys(self) -> Int[Tensor, "keys"]:
        """Columns that they read."""
        return self.attention.keys

    @property
    def write(self) -> Float[Tensor, "heads d_model head_dim"]:
        """What makes a summand of the residual stream of each head's output."""
        return wide(self.attention.write().detach())

    @property
    def bias(self) -> Float[Tensor, "d_model"]:
        """What the stage adds at every query, whatever its heads do."""
        return self.output.bias * self.scale

    def forward(
        self, changes: Float[Tensor, "copies keys d_model"]
    ) -> Float[Tensor, "copies queries d_model"]:
        """What heads write together of a summand of the states at the keys."""
        write = self.write
        values = self.norm.forward(changes) @ self.value.weight.T
        values = values.reshape(*values.shape[:2], -1, write.shape[-1]).transpose(1, 2)
        read = self.pattern @ per_head(values, len(write))
        return read.transpose(1, 2).flatten(2) @ write.transpose(1, 2).flatten(0, 1)

    def pulled(self, wanted: Float[Tensor, "queries d_model"]) -> Float[Tensor, "keys d_model"]:
        """What is wanted of the states at the keys, by what is wanted at the queries."""
        of_values = self._shared(self.pattern.mT @ self.outputs(wanted)).sum(1)
        return self.norm.pulled(of_values.transpose(0, 1).flatten(1) @ self.value.weight)

    def outputs(
        self, wanted: Float[Tensor, "queries d_model"]
    ) -> Float[Tensor, "heads queries head_dim"]:
        """What is wanted of heads' outputs."""
        return torch.einsum("qd,hdk->hqk", wanted, self.write)

    def reading(
        self,
        outputs: Float[Tensor, "heads queries head_dim"],
        queries: Int[Tensor, "at"],
        keys: Int[Tensor, "to"],
    ) -> Float[Tensor, "heads to d_model"]:
        """What each head wants of the states at some keys, for its outputs at some queries."""
        of_values = self._shared(self.pattern[:, queries][:, :, keys].mT @ outputs[:, queries])
        weight = self.value.weight.unflatten(0, (-1, outputs.shape[-1]))
        made = torch.einsum("gstk,gkd->gstd", of_values, weight).flatten(0, 1)
        return self.norm.at(keys).pulled(made)

    def constants(
        self, outputs: Float[Tensor, "heads queries head_dim"], queries: Int[Tensor, "at"]
    ) -> Float[Tensor, "heads"]:
        """What biases of norm and values give to each head at some queries."""
        bias = self.value.made_of(self.norm.bias).reshape(-1, outputs.shape[-1])
        seen = self.pattern[:, queries].sum(-1)
        own = per_head(bias[:, None], len(seen))[:, 0]
        return torch.einsum("hqk,hk,hq->h", outputs[:, queries], own, seen)

    def _shared(
        self, heads: Float[Tensor, "heads tokens head_dim"]
    ) -> Float[Tensor, "kv_heads shared tokens head_dim"]:
        """Heads beside those with the same keys and values."""
        return heads.unflatten(0, (len(self.value.bias) // heads.shape[-1], -1))


@dataclass(frozen=True, eq=False)
class HeldNetwork:
    """A feed-forward network whose neurons are linear in what enters them.

    Attributes:
        inputs: neurons' own.
        factor: what each is multiplied by: its gate, or, where there are none, `act(x) / x`.
    """

    columns: Int[Tensor, "tokens"]
    norm: HeldNorm
    inputs: Float[Tensor, "tokens neurons"]
    factor: Float[Tensor, "tokens neurons"]
    network: Network
    scale: float

    @property
    def outputs(self) -> Float[Tensor, "tokens neurons"]:
        """What neurons put out."""
        return self.factor * self.inputs

    @property
    def write(self) -> Float[Tensor, "d_model neurons"]:
        """What makes summands of the residual stream of neurons' outputs."""
        return self.network.down.weight * self.scale

    @property
    def bias(self) -> Float[Tensor, "d_model"]:
        """What the network adds at every token, whatever its neurons do: a part of its output."""
        return self.network.down.bias * self.scale

    def forward(
        self, changes: Float[Tensor, "copies tokens d_model"]
    ) -> Float[Tensor, "copies tokens d_model"]:
        """What the network writes of a summand of the states."""
        return (self.norm.forward(changes) @ self.network.up.weight.T * self.factor) @ self.write.T

    def pulled(self, wanted: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens d_model"]:
        """What is wanted of the states, by what is wanted of what the network writes."""
        return self.norm.pulled(self.entering(wanted) @ self.network.up.weight)

    def entering(self, wanted: Float[Tensor, "tokens d_model"]) -> Float[Tensor, "tokens neurons"]:
        """What is wanted of neurons' inputs."""
        return wanted @ self.write * self.factor

    def reading(
        self,
        entering: Float[Tensor, "tokens neurons"],
        tokens: Int[Tensor, "at"],
        neurons: Int[Tensor, "chosen"],
    ) -> Float[Tensor, "chosen at d_model"]:
        """What some neurons want of the states at some tokens."""
        through = entering[tokens][:, neurons].T
        made = through[..., None] * self.network.up.weight[neurons][:, None]
        return self.norm.at(tokens).pulled(made)

    def constants(
        self, entering: Float[Tensor, "tokens neurons"], tokens: Int[Tensor, "at"]
    ) -> Float[Tensor, "neurons"]:
        """What biases of norm and neurons give to each neuron at some tokens."""
        return entering[tokens].sum(0) * self.network.up.made_of(self.norm.bias)


Held = HeldHeads | HeldNetwork


def held_stages(model: HookedAudioModel, graph: Graph, run: Observed) -> list[Held]:
    """All stages of a run, held.

    Raises:
        PalscopeError: weights are quantised, or a network is of a kind that is not known.
    """
    with torch.no_grad():
        return [
            _network(model, graph, number, run)
            if stage.part == "mlp"
            else _heads(model, graph, number, run)
            for number, stage in enumerate(graph.stages)
        ]


def _network(model: HookedAudioModel, graph: Graph, number: int, run: Observed) -> HeldNetwork:
    stage = graph.stages[number]
    columns = graph.columns[stage.layer]
    states = run.state(stage)[torch.isin(columns.running[0], columns.fed[0])]
    block: Any = model.blocks[stage.layer]
    norm: Any = raw(block.ln2)
    network = network_of(raw(model.model.decoder.layers[stage.layer]))
    inputs, factor = network.factors(norm.forward(states))
    scale = residual_multiplier(model, stage.layer)
    held = HeldNorm.of(norm, states)
    return HeldNetwork(columns.fed[0], held, inputs, factor, network, scale)


def _heads(model: HookedAudioModel, graph: Graph, number: int, run: Observed) -> HeldHeads:
    stage = graph.stages[number]
    block: Any = model.blocks[stage.layer]
    module = block.cross_attn if stage.part == "cross" else block.attn
    value, output = values_of(raw(module)), linear(module.o)
    heads = heads_of(model, graph, number, run)
    assert heads is not None
    read = [] if heads.memory is None else [heads.memory]
    if stage.part == "cross":
        norm = HeldNorm.of(None, read[0])
    else:
        norm = HeldNorm.of(raw(block.ln1), torch.cat([*read, heads.state]))
    own = [
        column
        for each in graph.blocks
        if each.stage == number and each.own
        for column in graph.groups[each.key_group].columns
    ]
    return HeldHeads(
        heads.attention,
        torch.isin(heads.attention.keys, torch.tensor(own)),
        norm,
        attention_weights(heads.query, heads.keys, heads.attention.seen),
        value,
        output,
        residual_multiplier(model, stage.layer),
    )

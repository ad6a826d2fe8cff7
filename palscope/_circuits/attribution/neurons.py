"""Feed-forward networks taken apart: some neurons by themselves, and the rest as one node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.attribution.flow import Answer, Wanted, readings
from palscope._circuits.attribution.held import Held, HeldNetwork
from palscope._circuits.graph import Graph
from palscope._circuits.local import wide
from palscope._circuits.writes import Writes, places


@dataclass(frozen=True)
class Neuron:
    """A neuron of a network at a group of positions.

    Attributes:
        node: the network's.
        number: the neuron's, in the network.
        nats: of the answer that pass it: what it put out, times what is wanted of it.
        share: these nats' size, as a share of the sum over all of the network's neurons.
    """

    node: int
    number: int
    nats: float
    share: float


@torch.no_grad()
def main_neurons(
    graph: Graph,
    held: Sequence[Held],
    wanted: Wanted,
    influence: Float[np.ndarray, "nodes"],
    networks: Collection[int],
    count: int,
) -> list[Neuron]:
    """The neurons of some networks with the most influence: their share of the network's."""
    found: list[tuple[float, Neuron]] = []
    for node in networks:
        stage, at = _network(graph, held, node)
        through = wanted.writes[graph.nodes[node].stage][at] @ stage.write
        nats = (through * stage.outputs[at]).sum(0).cpu().double().numpy()
        share = np.abs(nats) / max(float(np.abs(nats).sum()), 1e-30)
        for number in np.argsort(-share)[:count]:
            neuron = Neuron(node, int(number), float(nats[number]), float(share[number]))
            found.append((influence[node] * neuron.share, neuron))
    return [neuron for _, neuron in sorted(found, key=lambda each: -each[0])[:count]]


@dataclass(frozen=True, eq=False)
class Apart:
    """Nats on neurons' edges.

    Attributes:
        into: to each neuron, from each node of the graph.
        out: from each neuron, to each node of the graph.
        between: from neuron to neuron.
        constants: what biases give to each.
    """

    into: Float[np.ndarray, "nodes neurons"]
    out: Float[np.ndarray, "neurons nodes"]
    between: Float[np.ndarray, "neurons neurons"]
    constants: Float[np.ndarray, "neurons"]


@torch.no_grad()
def taken_apart(
    graph: Graph,
    held: Sequence[Held],
    answer: Answer,
    wanted: Wanted,
    writes: Writes,
    neurons: Sequence[Neuron],
    targets: Collection[int],
) -> Apart:
    """The edges of some neurons.

    Args:
        targets: nodes of the graph to which edges are wanted.
    """
    of = {
        node: _Pieces.of(graph, held, wanted, neurons, node) for node in {n.node for n in neurons}
    }
    nodes, count = len(graph.nodes), len(neurons)
    made = Apart(
        np.zeros((nodes, count)),
        np.zeros((count, nodes)),
        np.zeros((count, count)),
        np.zeros(count),
    )
    for read in readings(graph, held, answer, wanted, {*targets, *of}):
        block = read.block
        sources = [of[node] for node in block.sources if node in of]
        target = of.get(block.targets[0])
        for source in sources:
            out = torch.einsum("std,ntd->sn", source.writes, read.wanted)
            made.out[np.ix_(source.rows, block.targets)] += out.cpu().numpy()
            if target is not None:
                between = torch.einsum("std,ntd->sn", source.writes, target.reads)
                made.between[np.ix_(source.rows, target.rows)] = between.cpu().numpy()
        if target is not None:
            into = torch.einsum("std,ntd->sn", wide(writes.of(block)), target.reads)
            made.into[np.ix_(block.sources, target.rows)] = into.cpu().numpy()
            biases = torch.einsum("ntd,td->n", target.reads, read.biases) + target.constants
            made.constants[target.rows] = biases.cpu().numpy()
    return made


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Neurons of one network at a group: what each writes there, and wants of what is there.

    Attributes:
        rows: their places among all neurons.
    """

    rows: list[int]
    writes: Float[Tensor, "neurons tokens d_model"]
    reads: Float[Tensor, "neurons tokens d_model"]
    constants: Float[Tensor, "neurons"]

    @classmethod
    def of(
        cls,
        graph: Graph,
        held: Sequence[Held],
        wanted: Wanted,
        neurons: Sequence[Neuron],
        node: int,
    ) -> _Pieces:
        rows = [row for row, neuron in enumerate(neurons) if neuron.node == node]
        numbers = torch.tensor([neurons[row].number for row in rows])
        stage, at = _network(graph, held, node)
        entering = stage.entering(wanted.writes[graph.nodes[node].stage])
        outputs = stage.outputs[at][:, numbers].T
        return cls(
            rows,
            outputs[..., None] * stage.write[:, numbers].T[:, None],
            stage.reading(entering, at, numbers),
            stage.constants(entering, at)[numbers],
        )


def _network(graph: Graph, held: Sequence[Held], node: int) -> tuple[HeldNetwork, Tensor]:
    """A node's network, and where its group stands there."""
    mine = graph.nodes[node]
    stage = held[mine.stage]
    assert isinstance(stage, HeldNetwork)
    return stage, places(stage.columns, graph.groups[mine.group].columns)

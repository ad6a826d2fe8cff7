"""A graph's nodes and edges with the most influence on the answer.

Influence is indirect (Ameisen et al. 2025): the answer has 1, and each node hands its own down to
what enters it, by the sizes of what passes its edges. So signs that cancel hide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from palscope._circuits.attribution.flow import Flow
from palscope._circuits.attribution.neurons import Apart, Neuron
from palscope._circuits.graph import Graph


def influence_of(graph: Graph, flow: Flow) -> Float[np.ndarray, "nodes"]:
    """Each node's; the answer's is 1."""
    found = np.zeros(len(graph.nodes))
    found[list(graph.blocks[-1].targets)] = 1.0
    sizes = flow.sizes(graph)
    sizes[sizes == 0] = 1
    for block in reversed(graph.blocks):  # from the answer downwards
        targets = list(block.targets)
        found[list(block.sources)] += np.abs(flow.of(block)) @ (found[targets] / sizes[targets])
    return found


def most_influential(influence: Float[np.ndarray, "nodes"], top: int) -> list[int]:
    """So many nodes beside the answer, which is the last, and the answer."""
    order = np.argsort(-influence[:-1], kind="stable")[:top]
    return [*sorted(int(node) for node in order if influence[node] > 0), len(influence) - 1]


@dataclass(frozen=True, eq=False)
class Part:
    """Some nodes of a graph, some neurons apart from their networks' nodes, and the biases.

    The graph's nodes come first; of a network with neurons its node is what is left. Biases are one
    source, the last.

    Attributes:
        kept: the graph's nodes.
        nats: of the answer that pass each.
        influence: of each on the answer.
        edges: nats from node to node.
        edge_influence: of each edge; those into a node sum to the node's, all edges counted that
            the graph has.
        of_nodes: the influence of all nodes of the graph, but for the answer.
        of_edges: of all its edges.
    """

    kept: list[int]
    neurons: Sequence[Neuron]
    nats: Float[np.ndarray, "nodes"]
    influence: Float[np.ndarray, "nodes"]
    edges: Float[np.ndarray, "nodes nodes"]
    edge_influence: Float[np.ndarray, "nodes nodes"]
    of_nodes: float
    of_edges: float

    @classmethod
    def of(
        cls,
        graph: Graph,
        flow: Flow,
        influence: Float[np.ndarray, "graph_nodes"],
        kept: list[int],
        neurons: Sequence[Neuron],
        apart: Apart,
    ) -> Part:
        """Of nodes that hold all networks of the neurons."""
        n, count = len(kept), len(kept) + len(neurons) + 1
        edges, nats, outside, own = np.zeros((count, count)), *(np.zeros(count) for _ in range(3))
        edges[:n, :n], outside[:n] = _among(graph, flow, kept)
        edges[-1, :n] = flow.constants[kept]
        edges[:n, n:-1], edges[-1, n:-1] = apart.into[kept], apart.constants
        edges[n:-1, :n], edges[n:-1, n:-1] = apart.out[:, kept], apart.between
        others = np.delete(np.arange(len(graph.nodes)), kept)
        outside[n:-1] = np.abs(apart.into[others]).sum(0)
        sizes = flow.sizes(graph)
        biases = np.abs(flow.constants) / np.where(sizes > 0, sizes, 1) * influence
        nats[:n], nats[-1] = flow.nodes[kept], flow.constants.sum()
        nats[n:-1] = [neuron.nats for neuron in neurons]
        own[:n], own[-1] = influence[kept], biases.sum()
        own[n:-1] = [influence[neuron.node] * neuron.share for neuron in neurons]
        for node in {neuron.node for neuron in neurons}:  # what is left of a network
            here, mine = kept.index(node), [neuron.node == node for neuron in neurons]
            rows = n + np.flatnonzero(mine)
            edges[here] -= edges[rows].sum(0)
            edges[:, here] -= edges[:, rows].sum(1)
            nats[here] -= nats[rows].sum()
            own[here] -= own[rows].sum()
            left = _entering(graph, flow, node) - apart.into[:, mine].sum(1)
            outside[here] = np.abs(left[others]).sum()
        sizes = outside + np.abs(edges).sum(0)
        handed = np.abs(edges) * (own / np.where(sizes > 0, sizes, 1))
        of_nodes = float(influence[:-1].sum() + biases.sum())
        of_edges = float(influence[[node.stage >= 0 for node in graph.nodes]].sum())
        return cls(kept, neurons, nats, own, edges, handed, of_nodes, of_edges)

    def strongest(
        self, graph: Graph, top: int
    ) -> tuple[Bool[np.ndarray, "nodes nodes"], Bool[np.ndarray, "nodes"]]:
        """So many edges by influence, and the nodes that they join, from sources to the answer.

        A node that nothing enters, or that leads nowhere, goes, and its edges make room for others.
        """
        source, answer = (np.zeros(len(self.nats), dtype=bool) for _ in range(2))
        source[: len(self.kept)] = [graph.nodes[node].stage < 0 for node in self.kept]
        source[-1] = answer[len(self.kept) - 1] = True
        stays = np.ones(len(self.nats), dtype=bool)
        while True:
            among = np.where(stays[:, None] & stays, self.edge_influence, 0.0)
            shown = np.zeros(among.shape, dtype=bool)
            shown.flat[np.argsort(-among, axis=None, kind="stable")[:top]] = True
            shown &= among > 0
            joined = (shown.any(1) | answer) & (shown.any(0) | source)
            if not (stays & ~joined).any():
                return shown, stays
            stays &= joined


def _among(
    graph: Graph, flow: Flow, kept: list[int]
) -> tuple[Float[np.ndarray, "kept kept"], Float[np.ndarray, "kept"]]:
    """Edges among some nodes; and of each the sizes of what enters from others, summed."""
    place = np.full(len(graph.nodes), -1)
    place[kept] = np.arange(len(kept))
    edges, outside = np.zeros((len(kept), len(kept))), np.zeros(len(kept))
    for block in graph.blocks:
        rows, columns = place[list(block.sources)], place[list(block.targets)]
        made = flow.of(block)[:, columns >= 0]
        columns = columns[columns >= 0]
        edges[np.ix_(rows[rows >= 0], columns)] += made[rows >= 0]
        outside[columns] += np.abs(made[rows < 0]).sum(0)
    return edges, outside


def _entering(graph: Graph, flow: Flow, node: int) -> Float[np.ndarray, "nodes"]:
    """What enters a network, by source."""
    found = np.zeros(len(graph.nodes))
    (block,) = [block for block in graph.blocks if block.slot == "mlp" and node in block.targets]
    found[list(block.sources)] = flow.of(block)[:, block.targets.index(node)]
    return found

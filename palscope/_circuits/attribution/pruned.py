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
        edges = np.abs(flow.edges[block.edges]).reshape(len(block.sources), len(targets))
        found[list(block.sources)] += edges @ (found[targets] / sizes[targets])
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
        place = np.full(len(graph.nodes), -1)
        place[kept] = np.arange(n)
        edges, nats, outside, own = np.zeros((count, count)), *(np.zeros(count) for _ in range(3))
        source, target, _ = graph.ends()
        both = (place[source] >= 0) & (place[target] >= 0)
        np.add.at(edges, (place[source[both]], place[target[both]]), flow.edges[both])
        edges[-1, :n] = flow.constants[kept]
        edges[:n, n:-1], edges[-1, n:-1] = apart.into[kept], apart.constants
        edges[n:-1, :n], edges[n:-1, n:-1] = apart.out[:, kept], apart.between
        whole = flow.sizes(graph)
        biases = np.abs(flow.constants) / np.where(whole > 0, whole, 1) * influence
        nats[:n], own[:n] = flow.nodes[kept], influence[kept]
        nats[n:-1] = [neuron.nats for neuron in neurons]
        left = place < 0
        others = left[source]
        outside[:n] = np.bincount(target[others], np.abs(flow.edges[others]), len(place))[kept]
        outside[n:-1] = np.abs(apart.into[left]).sum(0)
        own[n:-1] = [influence[neuron.node] * neuron.share for neuron in neurons]
        nats[-1], own[-1] = flow.constants.sum(), biases.sum()
        for node in {neuron.node for neuron in neurons}:
            here, mine = place[node], [neuron.node == node for neuron in neurons]
            rows = n + np.flatnonzero(mine)
            edges[here] -= edges[rows].sum(0)
            edges[:, here] -= edges[:, rows].sum(1)
            nats[here] -= nats[rows].sum()
            own[here] -= own[rows].sum()
            entering = np.bincount(source[target == node], flow.edges[target == node], len(place))
            outside[here] = np.abs(entering - apart.into[:, mine].sum(1))[left].sum()
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

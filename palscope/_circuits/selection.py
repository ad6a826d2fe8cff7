"""Circuits of scores: the edges of the largest ones, or those that grow from the answer."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope._circuits.graph import Graph
from palscope._circuits.metrics import SIZES
from palscope.errors import PalscopeError


def ranked(scores: Float[np.ndarray, "edges"], *, signed: bool = False) -> Int[np.ndarray, "edges"]:
    """Edges by their scores, the first ones first; of equal ones the lower number.

    Args:
        scores: effects of exchanging an edge for the corrupt run's (noising): negative ones help
            the clean answer.
        signed: those first that help the answer most, and last that hinder it; by default those of
            the largest effect, whatever its sign.
    """
    return np.argsort(scores if signed else -np.abs(scores), kind="stable")


def grown(
    graph: Graph, scores: Float[np.ndarray, "edges"], *, signed: bool = False
) -> Int[np.ndarray, "_edges"]:
    """Edges in the order in which a circuit grows from the answer.

    At every step the best edge into a node that is already there; so every edge of a circuit leads
    to the answer. Source: the greedy search of Hanna et al. 2024 (arXiv 2403.17806).

    Args:
        graph: whose edges.
        scores: as in `ranked`.
        signed: likewise.
    """
    worth = -scores if signed else np.abs(scores)
    source, target = graph.sources, graph.targets
    order = np.argsort(target, kind="stable")
    first = np.searchsorted(target[order], np.arange(len(graph.nodes) + 1))
    reached = {len(graph.nodes) - 1}  # the answer is the last node
    waiting: list[tuple[float, int]] = []

    def reach(node: int) -> None:
        for edge in order[first[node] : first[node + 1]].tolist():
            heapq.heappush(waiting, (-float(worth[edge]), edge))

    reach(len(graph.nodes) - 1)
    found: list[int] = []
    while waiting:
        _, edge = heapq.heappop(waiting)
        found.append(edge)
        node = int(source[edge])
        if node not in reached:
            reached.add(node)
            reach(node)
    return np.array(found)


def circuit_of(graph: Graph, edges: Int[np.ndarray, "_chosen"]) -> Bool[Tensor, "edges"]:
    """Of each edge whether it is among these.

    Raises:
        PalscopeError: there are none.
    """
    if not len(edges):
        raise PalscopeError("a circuit of no edges is the corrupt run; give at least one edge.")
    found = torch.zeros(graph.n_edges, dtype=torch.bool)
    found[torch.from_numpy(edges)] = True
    return found


def leading_to_answer(graph: Graph, circuit: Bool[Tensor, "edges"]) -> Bool[Tensor, "edges"]:
    """A circuit without edges that no path of its edges leads from to the answer.

    They change nothing in its run.
    """
    source, target = graph.sources, graph.targets
    inside = circuit.numpy()
    edges = np.flatnonzero(inside)
    heard = np.zeros(len(graph.nodes), dtype=bool)
    heard[-1] = True
    kept = np.zeros_like(inside)
    for edge in edges[::-1]:  # edges stand in the order of their targets' stages
        if heard[target[edge]]:
            kept[edge] = True
            heard[source[edge]] = True
    return torch.from_numpy(kept)


def on_the_way(graph: Graph, circuit: Bool[Tensor, "edges"]) -> Bool[Tensor, "edges"]:
    """A circuit's edges on a way from sound to the answer, all of it inside.

    Where outside edges carry the corrupt run, the others change nothing: the two runs differ in
    their sound alone, and what hears none of it writes the same in both.
    """
    source, target = graph.sources, graph.targets
    if graph.features_of(None) is None:
        carries = np.array([node.kind == "sound" for node in graph.nodes])
    else:
        carries = np.array([node.stage == -2 for node in graph.nodes])
    leads = leading_to_answer(graph, circuit).numpy()
    kept = np.zeros_like(leads)
    for edge in np.flatnonzero(leads):
        if carries[source[edge]]:
            kept[edge] = carries[target[edge]] = True
    return torch.from_numpy(kept)


def without(
    graph: Graph, circuit: Bool[Tensor, "edges"], nodes: Sequence[int]
) -> Bool[Tensor, "edges"]:
    """A circuit that some nodes are cut from: without all edges from them and into them."""
    source, target = graph.sources, graph.targets
    gone = np.isin(source, nodes) | np.isin(target, nodes)
    return circuit & ~torch.from_numpy(gone)


def counts(graph: Graph) -> list[int]:
    """How many edges circuits of MIB's sizes have.

    Raises:
        PalscopeError: the smallest one would be empty.
    """
    found = [int(share * graph.n_edges) for share in SIZES]
    if not found[0]:
        raise PalscopeError(
            f"{SIZES[0]:.1%} of {graph.n_edges} edges are none; cut the sound into more stretches."
        )
    return found

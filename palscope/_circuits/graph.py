"""The graph of a run: nodes, and the edges between them in blocks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from palscope._circuits.groups import Group
from palscope._routing import Route, TokenLayout
from palscope._routing.layout import LayerColumns
from palscope.errors import PalscopeError

Kind = Literal["sound", "text", "head", "cross_head", "mlp", "answer"]
Slot = Literal["q", "k", "v", "mlp", "answer"]
Sublayer = Literal["attn", "cross", "mlp"]


@dataclass(frozen=True)
class Stage:
    """A sublayer: all of its nodes read the residual stream at once, and then write to it."""

    layer: int
    part: Sublayer


@dataclass(frozen=True)
class Node:
    """A part of the model at a group of positions.

    Attributes:
        stage: its place among the graph's stages; -1 for what enters.
        group: its place among the graph's groups.
        layer: of a head or feed-forward network; of sound that enters this layer alone
            (a projected stream).
        head: a query head.
    """

    kind: Kind
    stage: int
    group: int
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Block:
    """Edges from each of `sources` to each of `targets`, scored together.

    Attributes:
        stage: of the targets; the number of stages for the answer.
        slot: which of the targets' inputs.
        group: where targets stand: the queries.
        key_group: where sources stand; the same as `group` but for keys and values.
        first: number of its first edge; they are counted source by source.
        own: whether the one source is read here as it enters, and not from the residual stream.
    """

    stage: int
    slot: Slot
    group: int
    key_group: int
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    first: int
    own: bool = False

    @property
    def size(self) -> int:
        """How many edges."""
        return len(self.sources) * len(self.targets)

    @property
    def edges(self) -> slice:
        """Their numbers."""
        return slice(self.first, self.first + self.size)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes, and edges in blocks.

    Attributes:
        written: for each group, the nodes that write to its residual stream, bottom first.
    """

    route: Route
    layout: TokenLayout
    groups: tuple[Group, ...]
    stages: tuple[Stage, ...]
    nodes: tuple[Node, ...]
    blocks: tuple[Block, ...]
    written: tuple[tuple[int, ...], ...]

    @property
    def n_edges(self) -> int:
        """How many edges."""
        return self.blocks[-1].edges.stop if self.blocks else 0

    def name(self, node: int) -> str:
        """A node in words."""
        each = self.nodes[node]
        group = self.groups[each.group].name
        where = "" if each.layer is None else f"L{each.layer} "
        what = {"head": f"head {each.head}", "cross_head": f"cross-attention head {each.head}"}
        if each.kind in ("sound", "text"):
            return f"{where}{group}"
        return f"{where}{what.get(each.kind, each.kind)} at {group}"

    def find(
        self,
        kind: Kind,
        group: int,
        layer: int | None = None,
        head: int | None = None,
    ) -> int:
        """The node's number. Raises `PalscopeError` when there is none."""
        found = self._numbers.get((kind, group, layer, head))
        if found is None:
            raise PalscopeError(
                f"the graph has no {kind} at {self.groups[group].name!r}, layer {layer}, head "
                f"{head}: it does not run there, or leads to no answer."
            )
        return found

    def edge(self, source: int, target: int, slot: Slot) -> int:
        """The edge's number. Raises `PalscopeError` when there is none."""
        for block in self._into.get((target, slot), ()):
            if source in block.sources:
                row, column = block.sources.index(source), block.targets.index(target)
                return block.first + row * len(block.targets) + column
        raise PalscopeError(f"no edge from {self.name(source)} to {self.name(target)}, {slot}.")

    @cached_property
    def sources(self) -> Int[np.ndarray, "edges"]:
        """Every edge's source."""
        parts = [np.repeat(block.sources, len(block.targets)) for block in self.blocks]
        return np.concatenate(parts, dtype=np.int32)

    @cached_property
    def targets(self) -> Int[np.ndarray, "edges"]:
        """Every edge's target."""
        parts = [np.tile(block.targets, len(block.sources)) for block in self.blocks]
        return np.concatenate(parts, dtype=np.int32)

    @property
    def slots(self) -> np.ndarray:
        """Every edge's slot."""
        return np.concatenate([np.full(block.size, block.slot) for block in self.blocks])

    def table(self, scores: Float[np.ndarray, "edges"], top: int | None = None) -> pd.DataFrame:
        """Edges by size of their score, the largest first: `edge, source, target, slot, score`.

        Args:
            top: so many of them; all by default.
        """
        order = np.argsort(-np.abs(scores), kind="stable")[:top]
        return self.named(order).assign(score=scores[order])

    def named(self, edges: Int[np.ndarray, "_edges"]) -> pd.DataFrame:
        """Some edges in words: `edge, source, target, slot`."""
        source, target, slot = self.sources, self.targets, self.slots
        return pd.DataFrame(
            {
                "edge": edges,
                "source": [self.name(int(node)) for node in source[edges]],
                "target": [self.name(int(node)) for node in target[edges]],
                "slot": slot[edges],
            }
        )

    @cached_property
    def columns(self) -> tuple[LayerColumns, ...]:
        """Which columns stand where, layer by layer."""
        layers = range(self.route.n_layers)
        return tuple(self.layout.layer_columns(self.route, layer) for layer in layers)

    @cached_property
    def shape(self) -> str:
        """A digest of nodes and edges: runs of the same have the same edges under each number."""
        told = repr((self.nodes, self.blocks)).encode()
        return hashlib.sha256(told).hexdigest()[:16]

    def __str__(self) -> str:
        kinds = pd.Series([node.kind for node in self.nodes]).value_counts(sort=False)
        slots: dict[str, int] = {}
        for block in self.blocks:
            slots[block.slot] = slots.get(block.slot, 0) + block.size
        nodes = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        edges = ", ".join(f"{count} into {slot}" for slot, count in slots.items())
        return (
            f"{len(self.nodes)} nodes ({nodes}) at {len(self.groups)} groups of positions; "
            f"{self.n_edges} edges ({edges})"
        )

    @cached_property
    def _numbers(self) -> dict[tuple[Kind, int, int | None, int | None], int]:
        return {
            (node.kind, node.group, node.layer, node.head): number
            for number, node in enumerate(self.nodes)
        }

    @cached_property
    def _into(self) -> dict[tuple[int, str], list[Block]]:
        found: dict[tuple[int, str], list[Block]] = {}
        for block in self.blocks:
            for target in block.targets:
                found.setdefault((target, block.slot), []).append(block)
        return found

"""The graph of a run: nodes, and the edges between them in blocks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from palscope._circuits.features import FeaturePlace
from palscope._circuits.groups import PAST, Group
from palscope._routing import Route, TokenLayout
from palscope._routing.layout import LayerColumns
from palscope.errors import PalscopeError

Kind = Literal["encoder", "sound", "text", "head", "cross_head", "mlp", "feature", "answer"]
Slot = Literal["sound", "q", "k", "v", "mlp", "answer"]
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
        stage: its place among the graph's stages; -1 for what enters the decoder, -2 for what
            stands in the encoder.
        group: its place among the graph's groups.
        layer: of a head or feed-forward network, and of a network's feature; of sound that enters
            this layer alone (a projected stream).
        head: a query head.
        feature: a latent of the dictionary that stands there.
    """

    kind: Kind
    stage: int
    group: int
    layer: int | None = None
    head: int | None = None
    feature: int | None = None


@dataclass(frozen=True)
class Block:
    """Edges from each of `sources` to each of `targets`, scored together.

    Attributes:
        stage: of the targets; the number of stages for the answer, -1 for sound that enters.
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
        groups: of the prompt's columns; behind them, where a dictionary stands in the encoder,
            stretches of the encoder's tokens.
        written: for each group, the nodes that write to its residual stream, bottom first; of a
            stretch in the encoder those that add up to its tokens.
        features: the dictionaries whose latents are nodes.
    """

    route: Route
    layout: TokenLayout
    groups: tuple[Group, ...]
    stages: tuple[Stage, ...]
    nodes: tuple[Node, ...]
    blocks: tuple[Block, ...]
    written: tuple[tuple[int, ...], ...]
    features: tuple[FeaturePlace, ...] = ()

    @property
    def n_edges(self) -> int:
        """How many edges."""
        return self.blocks[-1].edges.stop if self.blocks else 0

    def name(self, node: int) -> str:
        """A node in words."""
        each = self.nodes[node]
        group = self.groups[each.group].name
        where = "" if each.layer is None else f"L{each.layer} "
        what = {
            "head": f"head {each.head}",
            "cross_head": f"cross-attention head {each.head}",
            "feature": f"feature {each.feature}",
            "encoder": "rest",
        }
        if each.kind in ("sound", "text") or self.groups[each.group].stream == PAST:
            return f"{where}{group}"
        if each.kind == "mlp" and self.has_features(each.layer, each.group):
            return f"{where}rest of mlp at {group}"
        return f"{where}{what.get(each.kind, each.kind)} at {group}"

    def find(
        self,
        kind: Kind,
        group: int,
        layer: int | None = None,
        head: int | None = None,
        feature: int | None = None,
    ) -> int:
        """The node's number. Raises `PalscopeError` when there is none."""
        found = self._numbers.get((kind, group, layer, head, feature))
        if found is None:
            of = f"layer {layer}, head {head}" if feature is None else f"feature {feature}"
            raise PalscopeError(
                f"the graph has no {kind} at {self.groups[group].name!r}, {of}: it does not run "
                "there, leads to no answer, or is no node of its own."
            )
        return found

    def edge(self, source: int, target: int, slot: Slot) -> int:
        """The edge's number. Raises `PalscopeError` when there is none."""
        for block in self._into.get((target, slot), ()):
            if source in block.sources:
                row, column = block.sources.index(source), block.targets.index(target)
                return block.first + row * len(block.targets) + column
        raise PalscopeError(f"no edge from {self.name(source)} to {self.name(target)}, {slot}.")

    def features_of(self, layer: int | None) -> FeaturePlace | None:
        """The dictionary at a layer's network (None: in the encoder), if there is one."""
        return next((each for each in self.features if each.layer == layer), None)

    def has_features(self, layer: int | None, group: int) -> bool:
        """Whether latents of a layer's network (None: of the encoder) are nodes at a group."""
        place = self.features_of(layer)
        return place is not None and bool(place.latents.get(self.groups[group].name))

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
    def _numbers(self) -> dict[tuple[Kind, int, int | None, int | None, int | None], int]:
        return {
            (node.kind, node.group, node.layer, node.head, node.feature): number
            for number, node in enumerate(self.nodes)
        }

    @cached_property
    def _into(self) -> dict[tuple[int, str], list[Block]]:
        found: dict[tuple[int, str], list[Block]] = {}
        for block in self.blocks:
            for target in block.targets:
                found.setdefault((target, block.slot), []).append(block)
        return found

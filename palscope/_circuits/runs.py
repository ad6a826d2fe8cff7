"""A circuit's run: edges inside carry what is computed now, edges outside the other run's values.

Every node has an input of its own for each of its slots, so a head may hear a source in its query
and not in its keys. Source: edge patching as in Hanna et al. 2024 (arXiv 2403.17806) and Mueller et
al. 2025 (arXiv 2504.13151).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope._circuits.compared import compared
from palscope._circuits.entering import Below, Entering
from palscope._circuits.graph import Block, Graph
from palscope._circuits.local import (
    Heads,
    answered,
    attend,
    heads_of,
    per_head,
)
from palscope._circuits.metrics import faithfulness
from palscope._circuits.networks import Network
from palscope._circuits.observed import FINAL
from palscope._circuits.outside import written_instead, zero_writes
from palscope._circuits.writes import Writes, places
from palscope._hooks import HookedAudioModel
from palscope.measures._metrics import Answers


class CircuitRuns:
    """Runs of any circuit of one pair.

    Attributes:
        everything: the metric with all edges: the clean run's.
        nothing: with none: the corrupt run's, if edges outside carry that.
    """

    def __init__(
        self,
        model: HookedAudioModel,
        clean: Mapping[str, Any],
        corrupt: Mapping[str, Any],
        graph: Graph,
        *,
        answers: Answers,
        outside: Literal["corrupt", "zero"] | Writes = "corrupt",
    ) -> None:
        """Both runs are made once.

        Args:
            clean: as in `exact_effects`, like all others; inside edges carry this run.
            corrupt: outside edges carry this one.
            graph: likewise.
            answers: likewise.
            outside: what edges outside carry: the corrupt run's values (resample ablation), zero,
                or what `mean_writes` gives.

        Raises:
            PalscopeError: as `exact_effects`.
        """
        both = compared(model, clean, corrupt, graph, answers)
        self.model, self.graph, self.answers = model, graph, answers
        here, self.other = both.here, both.there
        self.clean, self.corrupt = both.writes_here, both.writes_there
        self.everything, self.nothing = here.metric, self.other.metric
        if outside != "corrupt":
            instead = zero_writes(self.clean) if outside == "zero" else outside
            self.other = written_instead(model, graph, here, self.clean, instead)
            self.corrupt = instead
            self.nothing = self.metric(torch.zeros(graph.n_edges, dtype=torch.bool))

    @torch.no_grad()
    def metric(self, circuit: Bool[Tensor, "edges"]) -> float:
        """The metric, in nats, when edges of the circuit carry what is computed now."""
        now = _Now(self.graph, self.clean, self.corrupt)
        self._heard(now, circuit)
        for number, every in itertools.groupby(self.graph.blocks, lambda block: block.stage):
            if number < 0:
                continue
            blocks = [(b, circuit[b.edges].view(len(b.sources), -1)) for b in every]
            heads = self._heads.get(number)
            if blocks[0][0].slot == "answer":
                (block, inside) = blocks[0]
                state = self.other.values[FINAL][-1:] + now.moved(block, inside)[0]
                return float(answered(self.model, state, self.answers))
            if heads is None:
                for block, inside in blocks:
                    if bool(inside.any()):
                        now.put(block.targets, self._fed(block, now, inside))
            else:
                self._attended(now, heads, blocks)
        raise AssertionError("a graph ends in the answer")

    def faithfulness(self, circuit: Bool[Tensor, "edges"]) -> float:
        """The share of the way from `nothing` to `everything` that a circuit goes.

        Raises:
            PalscopeError: the two are the same.
        """
        return faithfulness(self.metric(circuit), self.nothing, self.everything)

    @cached_property
    def _heads(self) -> dict[int, Heads | None]:
        """Each stage's heads in the corrupt run."""
        stages = range(len(self.graph.stages))
        return {each: heads_of(self.model, self.graph, each, self.other) for each in stages}

    def _heard(self, now: _Now, circuit: Bool[Tensor, "edges"]) -> None:
        """Puts the sound that enters, where features in the encoder are nodes."""
        entering = Entering.of(self.model, self.graph, self.other)
        if entering is None:
            return
        blocks = [block for block in self.graph.blocks if block.slot == "sound"]
        targets = [node for block in blocks for node in block.targets]
        place = {node: at for at, node in enumerate(dict.fromkeys(targets))}
        groups = list(dict.fromkeys(block.key_group for block in blocks))
        masks = {
            group: torch.zeros(len(self.graph.written[group]), len(place), dtype=torch.bool)
            for group in groups
        }
        for block in blocks:
            at = torch.tensor([place[node] for node in block.targets])
            masks[block.key_group][:, at] = circuit[block.edges].view(len(block.sources), -1)
        kinds, which = _alike(torch.cat([masks[group] for group in groups]))
        below = Below.of(entering.place, self.other, kinds.shape[1])
        first = 0
        for group in groups:
            inside = kinds[first : first + len(masks[group])]
            below.add(self.graph.groups[group], now.added(group, inside))
            first += len(inside)
        made = entering.sounds(below)
        for node, at in place.items():
            now.enter(node, made[node][which[at]])

    def _fed(
        self, block: Block, now: _Now, inside: Bool[Tensor, "sources targets"]
    ) -> Float[Tensor, "targets tokens d_model"]:
        """What a network and its features write, each of its own input."""
        stage = self.graph.stages[block.stage]
        running = self.graph.columns[stage.layer].running[0]
        at = places(running, self.graph.groups[block.group].columns)
        state = self.other.state(stage)[at]
        kinds, which = _alike(inside)
        states = state + now.moved(block, kinds).to(state)
        return Network(self.model, self.graph, stage.layer, block.group).written_of(states, which)

    def _attended(self, now: _Now, heads: Heads, blocks: Sequence[tuple[Block, Tensor]]) -> None:
        """Puts what a stage's heads write, wherever an edge into them is inside."""
        made = self._made(now, heads, blocks)
        write = heads.attention.write()
        standing = heads.attention.keys
        for group, every in itertools.groupby(blocks, lambda each: each[0].group):
            mine = [(block, inside) for block, inside in every]
            if not any(bool(inside.any()) for _, inside in mine):
                continue
            at = places(heads.attention.running, self.graph.groups[group].columns)
            query, keys, values = heads.query[:, at], heads.keys.clone(), heads.values.clone()
            for block, _ in mine:
                new = made.get((block.slot, block.group, block.key_group))
                if new is None:
                    continue
                if block.slot == "q":
                    query = new
                    continue
                to = places(standing, self.graph.groups[block.key_group].columns)
                (keys if block.slot == "k" else values)[:, to] = new
            out = attend(query, keys, values, heads.attention.seen[at])
            now.put(mine[0][0].targets, torch.einsum("thk,hdk->htd", out, write))

    def _made(
        self, now: _Now, heads: Heads, blocks: Sequence[tuple[Block, Tensor]]
    ) -> dict[tuple[str, int, int], Float[Tensor, "heads _tokens head_dim"]]:
        """Queries, keys and values that edges inside change, by slot, group and key group.

        Heads that hear the same sources have the same input, and share its way.
        """
        found: dict[tuple[str, int, int], Tensor] = {}
        count = len(heads.query)
        alike: dict[tuple[str, int], list[tuple[Block, Tensor]]] = {}
        for block, inside in blocks:
            if bool(inside.any()):
                alike.setdefault((block.slot, block.key_group), []).append((block, inside))
        for (slot, group), mine in alike.items():
            masks = torch.cat([inside for _, inside in mine], 1)
            kinds, which = _alike(masks)
            moved = now.moved(mine[0][0], kinds)
            new = self._projected(heads, slot, group, moved)  # [kinds, heads, tokens, head_dim]
            own = new[which, torch.arange(count).repeat(len(mine))]
            parts: list[Tensor] = list(own.chunk(len(mine)))
            for (block, _), part in zip(mine, parts, strict=True):
                found[slot, block.group, group] = part
        return found

    def _projected(
        self, heads: Heads, slot: str, group: int, moved: Float[Tensor, "kinds tokens d_model"]
    ) -> Float[Tensor, "kinds heads tokens head_dim"]:
        columns = self.graph.groups[group].columns
        if slot == "q":
            at = places(heads.attention.running, columns)
            states = heads.state[at] + moved.to(heads.state)
            return heads.attention.project(states, heads.attention.running[at])[0]
        return per_head(heads.made(columns, moved.to(heads.state))[slot == "v"], len(heads.query))


def _alike(
    inside: Bool[Tensor, "sources targets"],
) -> tuple[Bool[Tensor, "sources kinds"], Int[Tensor, "targets"]]:
    """The different columns, and which of them each column is."""
    unique: Any = inside.unique
    return unique(dim=1, return_inverse=True)


class _Now:
    """What nodes write in a circuit's run, as it goes upwards; at first what they write outside."""

    def __init__(self, graph: Graph, clean: Writes, corrupt: Writes) -> None:
        self._graph, self._corrupt = graph, corrupt
        self._own = clean - corrupt
        self._moved = [torch.zeros_like(each) for each in clean.residual]
        self._place = {
            node: (group, place)
            for group, nodes in enumerate(graph.written)
            for place, node in enumerate(nodes)
        }
        for node, (group, place) in self._place.items():
            if graph.nodes[node].stage < 0:
                self._moved[group][place] = self._own.residual[group][place]

    def put(self, nodes: Sequence[int], written: Float[Tensor, "nodes tokens d_model"]) -> None:
        """What nodes of one group write now."""
        group, first = self._place[nodes[0]]
        places = slice(first, first + len(nodes))
        others = self._corrupt.residual[group][places]
        self._moved[group][places] = written.to(others) - others

    def enter(self, node: int, written: Float[Tensor, "tokens d_model"]) -> None:
        """What a node of sound is now."""
        if node in self._place:
            self.put([node], written[None])
        else:
            others = self._corrupt.own[node]
            self._own.own[node] = written[None].to(others) - others

    def moved(
        self, block: Block, inside: Bool[Tensor, "sources kinds"]
    ) -> Float[Tensor, "kinds tokens d_model"]:
        """What inputs that hear these sources have more than in the other run."""
        if block.own:
            return _added(self._own.own[block.sources[0]], inside)
        return _added(self._moved[block.key_group][: len(block.sources)], inside)

    def added(
        self, group: int, inside: Bool[Tensor, "sources kinds"]
    ) -> Float[Tensor, "kinds tokens width"]:
        """What those that hear some of a group's nodes have there more than in the other run."""
        return _added(self._moved[group], inside)


def _added(
    written: Float[Tensor, "sources tokens width"], inside: Bool[Tensor, "sources kinds"]
) -> Float[Tensor, "kinds tokens width"]:
    return torch.einsum("sk,std->ktd", inside.to(written), written)

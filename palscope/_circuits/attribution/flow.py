"""How much of the answer passes each node and edge, in nats.

From the answer downwards: what it wants of the residual stream is pulled back through all held
stages. A source's part of the answer is then what it writes times what is wanted of it there, and
an edge's what the source writes times what its target alone wants.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.attribution.held import Held, HeldHeads, HeldNorm
from palscope._circuits.graph import Block, Graph
from palscope._circuits.local import wide
from palscope._circuits.observed import FINAL, Observed
from palscope._circuits.writes import Writes, places
from palscope._hooks import HookedAudioModel
from palscope._models.families import family_of, raw
from palscope.measures._metrics import Answers
from palscope.measures._vocabulary import unembed


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer of a run as a linear function of the last token's state, its norm held.

    Attributes:
        value: the logit difference, or the only answer's logit, as the model gave it.
        constant: what of it is no part of the state: biases of norm and unembedding.
        probability: of the (first) answer's token.
    """

    value: float
    wanted: Float[Tensor, "d_model"]
    constant: float
    probability: float

    @classmethod
    @torch.no_grad()
    def of(cls, model: HookedAudioModel, answers: Answers, run: Observed) -> Answer:
        """The answer of a run."""
        inner = model.model
        state = run.values[FINAL][-1:]
        logits = unembed(model, state)[0]
        value, ids, signs = float(logits[answers.clean]), [answers.clean], [1.0]
        if answers.corrupt is not None:
            value, ids, signs = run.metric, [answers.clean, answers.corrupt], [1.0, -1.0]
        sign = wide(state).new_tensor(signs) / inner.logits_divisor
        norm = HeldNorm.of(raw(getattr(inner.decoder, family_of(inner.text_config).norm)), state)
        unembedding: Any = raw(inner.unembedding)
        row = sign @ wide(unembedding.weight[ids])
        constant = row @ norm.bias
        if getattr(unembedding, "bias", None) is not None:
            constant = constant + sign @ wide(unembedding.bias[ids])
        probability = float(logits.softmax(-1)[answers.clean])
        return cls(value, norm.pulled(row[None])[0], float(constant), probability)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What the answer wants of the residual stream: its gradient, with all held.

    Attributes:
        writes: of what each stage writes, at its columns.
        reads: of what it reads, at heads' keys or the network's columns.
        entering: at the bottom, by column.
    """

    writes: list[Float[Tensor, "_columns d_model"]]
    reads: list[Float[Tensor, "_keys d_model"]]
    entering: Float[Tensor, "width d_model"]

    @classmethod
    @torch.no_grad()
    def of(cls, graph: Graph, held: Sequence[Held], answer: Answer) -> Wanted:
        """Pulled back from the answer to the bottom."""
        wanted = answer.wanted.new_zeros(graph.layout.width, len(answer.wanted))
        wanted[graph.groups[graph.blocks[-1].group].columns[0]] = answer.wanted
        writes: list[Tensor] = []
        reads: list[Tensor] = []
        for stage in reversed(held):
            writes.append(wanted[stage.columns])
            reads.append(made := stage.pulled(writes[-1]))
            if isinstance(stage, HeldHeads):
                wanted[stage.keys[~stage.own]] += made[~stage.own]
            else:
                wanted[stage.columns] += made
        return cls(writes[::-1], reads[::-1], wanted)


LEAST = 1e-4
"""A node through which less than this share of the largest one's nats passes is next to nothing."""


@dataclass(frozen=True, eq=False)
class Flow:
    """Nats of the answer.

    Attributes:
        edges: what passes each edge; of edges into queries and keys, which are held, nothing.
        nodes: what each node wrote in the run, times what is wanted of it. Of what enters that is
            its part of the answer, and of the answer the answer itself.
        constants: what biases give to each node, from below or within.
    """

    edges: Float[np.ndarray, "edges"]
    nodes: Float[np.ndarray, "nodes"]
    constants: Float[np.ndarray, "nodes"]

    def of(self, block: Block) -> Float[np.ndarray, "sources targets"]:
        """A block's edges."""
        return self.edges[block.edges].reshape(len(block.sources), len(block.targets))

    def sizes(self, graph: Graph) -> Float[np.ndarray, "nodes"]:
        """Of each node the sum of the sizes of all that enters it."""
        found = np.abs(self.constants)
        for block in graph.blocks:
            found[list(block.targets)] += np.abs(self.of(block)).sum(0)
        return found

    def sums(self, graph: Graph) -> Float[np.ndarray, "nodes"]:
        """Of each node the sum of all that enters it."""
        found = self.constants.copy()
        for block in graph.blocks:
            found[list(block.targets)] += self.of(block).sum(0)
        return found

    def missing(self, graph: Graph) -> Float[np.ndarray, "nodes"]:
        """What the sum of all that enters a node lacks of it, as a share of the sum of its sizes.

        Of a node that is next to nothing, as a share of `LEAST` of the largest node's: the parts of
        a single edge cancel there, and what they are rounded by is left. Of what enters the model
        itself it is 0.
        """
        inside = np.array([node.stage >= 0 for node in graph.nodes])
        lacking = np.abs(self.nodes - self.sums(graph)) * inside
        size = self.sizes(graph)
        size = np.maximum(size, LEAST * size.max())
        return np.divide(lacking, size, out=lacking, where=size > 0)


@torch.no_grad()
def flow_of(
    graph: Graph, held: Sequence[Held], answer: Answer, wanted: Wanted, writes: Writes
) -> Flow:
    """All of a graph's edges and nodes."""
    edges, nodes, constants = (np.zeros(n) for n in (graph.n_edges, *[len(graph.nodes)] * 2))
    for read in readings(graph, held, answer, wanted):
        made = torch.einsum("std,ntd->sn", wide(writes.of(read.block)), read.wanted)
        edges[read.block.edges] = made.flatten().cpu().numpy()
        biases = torch.einsum("ntd,td->n", read.wanted, read.biases) + read.within
        constants[list(read.block.targets)] += biases.cpu().numpy()
        if read.block.own:
            nodes[read.block.sources[0]] += float(made.sum())
    for group, written, made in zip(graph.groups, graph.written, writes.residual, strict=True):
        for place, index in enumerate(written):
            stage = graph.nodes[index].stage
            if stage < 0:
                there = wanted.entering[list(group.columns)]
            else:
                there = wanted.writes[stage][places(held[stage].columns, group.columns)]
            nodes[index] = float((wide(made[place]) * there).sum())
    nodes[-1] = answer.value
    return Flow(edges, nodes, constants)


@dataclass(frozen=True, eq=False)
class Read:
    """What a block's targets want of the states that they read.

    Attributes:
        wanted: of each target.
        biases: what biases of the stages below have written to these states.
        within: what biases of the stage itself give to each target; told once, in the first of
            several blocks with the same targets.
    """

    block: Block
    wanted: Float[Tensor, "targets tokens d_model"]
    biases: Float[Tensor, "tokens d_model"]
    within: Float[Tensor, "targets"]


@torch.no_grad()
def readings(
    graph: Graph,
    held: Sequence[Held],
    answer: Answer,
    wanted: Wanted,
    targets: Collection[int] | None = None,
) -> Iterator[Read]:
    """Of all blocks into values, networks and the answer, from the bottom upwards.

    Args:
        targets: only blocks with one of these among their targets.
    """
    biases = torch.zeros_like(wanted.entering)
    told: set[int] = set()
    passed, outputs = -1, answer.wanted
    for block in graph.blocks:
        while passed < block.stage:
            if passed >= 0 and isinstance(stage := held[passed], HeldHeads):
                biases[stage.columns] += stage.bias  # a network's own is a part of its output
            passed += 1
            if passed < len(held) and isinstance(stage := held[passed], HeldHeads):
                outputs = stage.outputs(wanted.writes[passed])
        if block.slot in ("q", "k"):
            continue
        if targets is not None and not any(target in targets for target in block.targets):
            continue
        columns = list(graph.groups[block.key_group].columns)
        below = torch.zeros_like(biases[columns]) if block.own else biases[columns]
        if block.slot == "answer":
            constant = answer.wanted.new_tensor([answer.constant])
            yield Read(block, answer.wanted[None, None], below, constant)
            continue
        stage = held[block.stage]
        at = places(stage.columns, graph.groups[block.group].columns)
        if isinstance(stage, HeldHeads):
            made = stage.reading(outputs, at, places(stage.keys, columns))
            within = stage.constants(outputs, at)
        else:
            made = wanted.reads[block.stage][at][None]
            of_output = wanted.writes[block.stage]
            within = stage.constants(stage.entering(of_output), at).sum()[None]
            within = within + (of_output[at] @ stage.bias).sum()
        if block.targets[0] in told:
            within = torch.zeros_like(within)
        told.add(block.targets[0])
        yield Read(block, made, below, within)

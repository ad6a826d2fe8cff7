"""Exact effects of edges: one node computed anew with one summand exchanged, all above it run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.graph import Block, Graph
from palscope._circuits.local import Attention, answered, attend, check_adds_up, fed, per_head
from palscope._circuits.observed import FINAL, Observed, memory_hook, observe, output_hook
from palscope._circuits.writes import Writes, differences, places
from palscope._hooks import HookedAudioModel
from palscope.interventions import Address, Change
from palscope.interventions._apply import Bound
from palscope.interventions._cells import with_encoded
from palscope.interventions._engine import Engine, start_of
from palscope.interventions._resolve import Part, Resolved
from palscope.measures._gradients import measured
from palscope.measures._metrics import Answers
from palscope.measures._patching import Direction, source_and_target

Slots = Literal["q", "k", "v"]


@dataclass(frozen=True, eq=False)
class Put(Change):
    """A value in place of that there."""

    value: Tensor
    continues = False

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        return self.value.to(old)


class Moved:
    """What targets of a block put out when each of its sources' edges is exchanged by itself."""

    def __init__(
        self, model: HookedAudioModel, graph: Graph, run: Observed, writes: Writes
    ) -> None:
        self.model, self.graph, self.run, self.writes = model, graph, run, writes

    def outputs(self, block: Block) -> Float[Tensor, "sources tokens targets width"]:
        """At the tokens of the block's group."""
        stage = self.graph.stages[block.stage]
        change = self.writes.of(block)
        group = self.graph.groups[block.group].columns
        if block.slot == "mlp":
            columns = self.graph.layout.layer_columns(self.graph.route, stage.layer)
            state = self.run.state(stage)[places(columns.running[0], group)]
            return fed(self.model, stage.layer, state + change)[:, :, None]
        heads = Attention(self.model, self.graph, stage)
        at = places(heads.running, group)
        state = self.run.state(stage)
        query = heads.project(state[None], heads.running)[0][0][:, at]
        memory = self.run.values.get(memory_hook(self.model, stage.layer))
        count = self.model.cfg.n_heads
        keys, values = (per_head(each, count) for each in heads.keys_values(state, memory))
        if block.slot == "q":
            query = heads.project(state[at] + change, heads.running[at])[0]
        else:
            columns = torch.tensor(self.graph.groups[block.key_group].columns)
            to = places(heads.keys, tuple(columns.tolist()))
            if int(to[0]) < heads.n_read:
                assert memory is not None
                made = heads.remembered(memory[to] + change, columns)
            else:
                old = state[places(heads.running, tuple(columns.tolist()))]
                made = heads.project(old + change, columns)[1:]
            new = per_head(made[block.slot == "v"], count)
            changed = (values if block.slot == "v" else keys).expand(len(new), -1, -1, -1).clone()
            changed[:, :, to] = new
            keys, values = (keys, changed) if block.slot == "v" else (changed, values)
        rows = (each.expand(len(change), -1, -1, -1) for each in (query, keys, values))
        return attend(*rows, heads.seen[at])

    def answers(self, block: Block, answers: Answers) -> Float[Tensor, "sources"]:
        """The metric when each source's write into the answer is exchanged by itself."""
        return answered(
            self.model, self.run.values[FINAL][-1] + self.writes.of(block)[:, 0], answers
        )


@torch.no_grad()
def exact_effects(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    graph: Graph,
    *,
    answers: Answers,
    direction: Direction = "noising",
    batch_size: int | None = None,
) -> np.ndarray:
    """What exchanging each edge by itself does to the metric, in nats, in the graph's order.

    Args:
        clean: inputs of the clean prompt.
        corrupt: of the corrupt one: the same text, and a clip of the same length.
        answers: the deciding tokens; the graph is of the prompt with their common beginning.
        direction: `noising` puts the corrupt run's value of the edge into the clean run,
            `denoising` the reverse.
        batch_size: of late runs that share a pass; by default as many as memory holds.

    Raises:
        PalscopeError: the prompts differ in more than sound, or what nodes write does not add up.
    """
    check_adds_up(model)
    source, target = source_and_target(clean, corrupt, answers, direction)
    here, there = (observe(model, each, graph, answers) for each in (target, source))
    moved = Moved(model, graph, here, differences(model, graph, there, here))
    scores = np.zeros(graph.n_edges)
    cells: dict[int, list[Bound]] = {}
    for block in graph.blocks:
        if block.slot == "answer":
            scores[block.edges] = (moved.answers(block, answers) - here.metric).cpu().numpy()
            continue
        cells |= _cells(graph, block, moved.outputs(block), here)
    engine = Engine(model, with_encoded(model, target))
    starts = {number: start_of(cell, graph.layout, graph.route) for number, cell in cells.items()}
    for batch in engine.batches({n: s for n, s in starts.items() if s}, batch_size):
        logits, _ = engine.run([(cells[n], s) for n in batch if (s := starts[n])])
        scores[batch] = measured(logits.double(), answers, answers.metric).cpu() - here.metric
    return scores


def _cells(graph: Graph, block: Block, outputs: Tensor, run: Observed) -> dict[int, list[Bound]]:
    """By edge, the change of its target's output; edges that move nothing are left out."""
    stage = graph.stages[block.stage]
    columns = graph.groups[block.group].columns
    here = graph.layout.layer_columns(graph.route, stage.layer)
    mlp = stage.part == "mlp"
    old = run.values[output_hook(stage)][places((here.fed if mlp else here.running)[0], columns)]
    old = old[:, None] if mlp else old
    found: dict[int, list[Bound]] = {}
    for row, values in enumerate(outputs):
        for column in range(len(block.targets)):
            if torch.allclose(values[:, column], old[:, column], rtol=1e-6, atol=1e-7):
                continue
            value = values[:, column] if mlp else values[:, [column]]
            part = Part(
                output_hook(stage),
                "fed" if mlp else "running",
                0,
                torch.tensor(columns),
                layer=stage.layer,
                heads=None if mlp else (column,),
            )
            address = Address("mlp_out" if mlp else "head_output")
            bound = Bound(Resolved(address, (part,), lambda: None), Put(value))  # pyright: ignore
            found[block.first + row * len(block.targets) + column] = [bound]
    return found

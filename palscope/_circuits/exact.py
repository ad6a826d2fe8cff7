"""Exact effects of edges: one node computed anew with one summand exchanged, all above it run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
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
from palscope._circuits.networks import Network
from palscope._circuits.observed import FINAL, Observed, output_hook
from palscope._circuits.writes import Writes, entry_parts, places
from palscope._hooks import HookedAudioModel
from palscope.interventions import Address, Change
from palscope.interventions._apply import Bound
from palscope.interventions._cells import with_encoded
from palscope.interventions._engine import Engine, start_of
from palscope.interventions._parts import Part, Resolved
from palscope.measures._gradients import measured
from palscope.measures._metrics import Answers
from palscope.measures._patching import Direction

_ROUNDING = 1e-6
"""Of a stage's largest output: what moves a node no further moves it not at all."""


@dataclass(frozen=True, eq=False)
class Effects:
    """What exchanging each edge does to the metric, in nats, in the graph's order.

    Attributes:
        total: with all above the edge's target computed anew.
        direct: with all else as it was: what the target then tells the answer itself.
        runs: how many late passes `total` took; an edge that moves nothing takes none.
    """

    total: Float[np.ndarray, "edges"]
    direct: Float[np.ndarray, "edges"]
    runs: int


@torch.no_grad()
def exact_effects(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    graph: Graph,
    *,
    answers: Answers,
    direction: Direction = "noising",
    edges: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Effects:
    """What exchanging each edge by itself does to the answer.

    Args:
        clean: inputs of the clean prompt.
        corrupt: of the corrupt one: the same text, and a clip of the same length.
        answers: the deciding tokens; the graph is of the prompt with their common beginning.
        direction: `noising` puts the corrupt run's value of the edge into the clean run,
            `denoising` the reverse.
        edges: these alone, by number; all others are NaN. By default every edge.
        batch_size: of late runs that share a pass; by default as many as memory holds.

    Raises:
        PalscopeError: the prompts differ in more than sound, or what nodes write does not add up.
    """
    runs = compared(model, clean, corrupt, graph, answers, direction)
    return effects_of(model, runs.inputs, graph, runs.here, runs.change, answers, edges, batch_size)


@torch.no_grad()
def effects_of(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    graph: Graph,
    run: Observed,
    writes: Writes,
    answers: Answers,
    edges: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Effects:
    """What moving each edge of a run on `inputs` by its source's part of `writes` does."""
    asked = np.full(graph.n_edges, edges is None)
    asked[[] if edges is None else list(edges)] = True
    total, direct = (np.where(asked, 0.0, np.nan) for _ in range(2))
    cells: dict[int, list[Bound]] = {}
    heads: Heads | None = None
    for block in graph.blocks:
        wanted = torch.from_numpy(asked[block.edges]).view(len(block.sources), -1)
        moving = (writes.of(block).flatten(1).any(1).cpu() & wanted.any(1)).nonzero()[:, 0]
        if not len(moving):
            continue
        change = writes.of(block)[moving.to(writes.of(block).device)]
        numbers = moving[:, None] * len(block.targets) + torch.arange(len(block.targets))
        here = (block.first + numbers).numpy()
        if block.slot == "sound":
            cells |= _sounds(model, graph, block, run, change, wanted[moving], here)
            continue
        if heads is None or heads.number != block.stage:
            heads = heads_of(model, graph, block.stage, run)
        if block.slot == "answer":
            made = answered(model, run.values[FINAL][-1] + change[:, 0], answers) - run.metric
            total[here[:, 0]] = direct[here[:, 0]] = made.cpu().numpy()
            continue
        moved = moved_outputs(model, graph, block, run, heads, change)
        direct[here] = _direct(model, graph, block, run, heads, moved, answers)
        cells |= _cells(graph, block, run, moved * wanted[moving, None, :, None].to(moved), here)
    direct[~asked] = np.nan
    engine = Engine(model, with_encoded(model, inputs))
    starts = {
        edge: start
        for edge, cell in cells.items()
        if (start := start_of(cell, graph.layout, graph.route)) is not None
    }
    for batch in engine.batches(starts, batch_size):
        logits, _ = engine.run([(cells[edge], starts[edge]) for edge in batch])
        made = measured(logits.double(), answers, answers.metric)
        total[batch] = made.cpu().numpy() - run.metric
    return Effects(total, direct, len(starts))


def moved_outputs(
    model: HookedAudioModel,
    graph: Graph,
    block: Block,
    run: Observed,
    heads: Heads | None,
    change: Float[Tensor, "sources tokens d_model"],
) -> Float[Tensor, "sources queries targets width"]:
    """How a block's targets' outputs move when their input is moved by each of `change`."""
    group = graph.groups[block.group].columns
    change = change.to(run.state(graph.stages[block.stage]).device)
    if heads is None:
        stage = graph.stages[block.stage]
        running = graph.columns[stage.layer].running[0]
        state = run.state(stage)[places(running, group)]
        network = Network(model, graph, stage.layer, block.group)
        return (network.written(state + change) - network.written(state)).transpose(1, 2)
    at = places(heads.attention.running, group)
    query, keys, values = heads.query[:, at], heads.keys, heads.values
    seen = heads.attention.seen[at]
    old = attend(query, keys, values, seen)
    if block.slot == "q":
        query = heads.attention.project(heads.state[at] + change, heads.attention.running[at])[0]
    else:
        columns = graph.groups[block.key_group].columns
        new = per_head(heads.made(columns, change)[block.slot == "v"], len(keys))
        whole = (values if block.slot == "v" else keys).expand(len(new), -1, -1, -1).clone()
        whole[:, :, places(heads.attention.keys, columns)] = new
        keys, values = (keys, whole) if block.slot == "v" else (whole, values)
    query, keys, values = (x.expand(len(change), -1, -1, -1) for x in (query, keys, values))
    return attend(query, keys, values, seen) - old


def _direct(
    model: HookedAudioModel,
    graph: Graph,
    block: Block,
    run: Observed,
    heads: Heads | None,
    moved: Float[Tensor, "sources queries targets width"],
    answers: Answers,
) -> Float[np.ndarray, "sources targets"]:
    """What targets at the last token tell the answer themselves; others tell it nothing."""
    if block.group != graph.blocks[-1].group:  # the last block is the answer
        return np.zeros((moved.shape[0], moved.shape[2]))
    if heads is None:
        written = moved[:, -1]
    else:
        written = torch.einsum("shk,hdk->shd", moved[:, -1], heads.attention.write())
    states = (run.values[FINAL][-1] + written.to(run.values[FINAL])).flatten(0, 1)
    made = answered(model, states, answers) - run.metric
    return made.reshape(moved.shape[0], moved.shape[2]).cpu().numpy()


@dataclass(frozen=True, eq=False)
class _Move(Change):
    """What is there, moved."""

    by: Tensor
    continues = False

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        return old + self.by.to(old)


def _cells(
    graph: Graph, block: Block, run: Observed, moved: Tensor, edges: np.ndarray
) -> dict[int, list[Bound]]:
    """By edge, the move of its target's output; edges that move nothing are left out."""
    stage = graph.stages[block.stage]
    hook, mlp = output_hook(stage), stage.part == "mlp"
    columns = torch.tensor(graph.groups[block.group].columns)
    enough = _ROUNDING * float(run.values[hook].abs().max())
    found: dict[int, list[Bound]] = {}
    moving: list[list[int]] = (moved.abs().amax((1, 3)) > enough).nonzero().tolist()
    for row, column in moving:
        part = Part(
            hook,
            "fed" if mlp else "running",
            0,
            columns,
            layer=stage.layer,
            heads=None if mlp else (column,),
        )
        by = moved[row, :, column] if mlp else moved[row][:, [column]]
        resolved = Resolved(Address("mlp_out" if mlp else "head_output"), (part,), pd.DataFrame)
        found[int(edges[row, column])] = [Bound(resolved, _Move(by))]
    return found


def _sounds(
    model: HookedAudioModel,
    graph: Graph,
    block: Block,
    run: Observed,
    change: Float[Tensor, "sources tokens d_in"],
    wanted: Bool[Tensor, "sources targets"],
    edges: np.ndarray,
) -> dict[int, list[Bound]]:
    """By edge, the moves of sound as it enters, of which the encoder hears `change`."""
    entering = Entering.of(model, graph, run)
    assert entering is not None
    below = Below.of(entering.place, run, 1 + len(change))
    below.add(graph.groups[block.key_group], torch.cat([torch.zeros_like(change[:1]), change]))
    made = entering.sounds(below)
    found: dict[int, list[Bound]] = {}
    asked: list[list[int]] = wanted.nonzero().tolist()
    for row, column in asked:
        node = block.targets[column]
        moved = made[node][1 + row] - made[node][0]
        found[int(edges[row, column])] = [
            Bound(Resolved(Address("audio_state"), (part,), pd.DataFrame), _Move(moved))
            for part in entry_parts(model, graph, graph.nodes[node])
        ]
    return found

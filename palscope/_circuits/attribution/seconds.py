"""The answer as a sum over seconds, and the layers by way of which each stretch reached the words.

A stretch's part goes by way of the layer in which text reads it first: whose heads carry what
stems from it out of the columns of sound. Within those columns, whatever sound reads of sound, it
is still sound. Of sound that is only keys (LAL) the layer is the one that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.attribution.flow import Wanted
from palscope._circuits.attribution.held import Held, HeldHeads
from palscope._circuits.graph import Graph
from palscope._circuits.local import wide
from palscope._circuits.writes import Writes, places

_AT_ONCE = 8
"""Stretches that go up together; more would be memory."""

MOST = 0.75
"""What the layers that are named must carry, as a share of a stretch's part."""


def sound_groups(graph: Graph) -> list[int]:
    """Groups of positions at which sound enters."""
    return sorted({node.group for node in graph.nodes if node.kind == "sound"})


@torch.no_grad()
def by_layer(
    graph: Graph, held: Sequence[Held], wanted: Wanted, writes: Writes
) -> Float[np.ndarray, "groups layers"]:
    """Nats of the answer that stem from each group of sound, by the layer in which text reads it.

    What enters is followed upwards through the columns of sound, with all held; what heads carry
    from there to text is met by what the answer wants there. The sum over layers is the group's
    part of the answer.
    """
    groups = sound_groups(graph)
    parts = [
        _followed(graph, held, wanted, writes, groups[first : first + _AT_ONCE])
        for first in range(0, len(groups), _AT_ONCE)
    ]
    return np.concatenate(parts)


def _followed(
    graph: Graph, held: Sequence[Held], wanted: Wanted, writes: Writes, groups: list[int]
) -> Float[np.ndarray, "groups layers"]:
    width, size = wanted.entering.shape
    states = wanted.entering.new_zeros(len(groups), width, size)
    for row, group in enumerate(groups):
        if graph.written[group] and graph.nodes[graph.written[group][0]].kind == "sound":
            states[row, list(graph.groups[group].columns)] = wide(writes.residual[group][0])
    heard = torch.zeros(width, dtype=torch.bool)
    for group in graph.groups:
        heard[list(group.columns)] = group.stream is not None
    found = np.zeros((len(groups), graph.route.n_layers))
    for number, stage in enumerate(held):
        if isinstance(stage, HeldHeads):
            changes = states[:, stage.keys]
            changes[:, stage.own] = 0
            _read_as_it_entered(graph, number, stage, writes, groups, changes)
        else:
            changes = states[:, stage.columns]
        if not bool(changes.any()):
            continue
        written = stage.forward(changes)
        sound = heard[stage.columns]
        told = torch.einsum("ctd,td->c", written[:, ~sound], wanted.writes[number][~sound])
        found[:, graph.stages[number].layer] += told.cpu().numpy()
        states[:, stage.columns[sound]] += written[:, sound]
    return found


def _read_as_it_entered(
    graph: Graph,
    number: int,
    stage: HeldHeads,
    writes: Writes,
    groups: list[int],
    changes: Float[Tensor, "groups keys d_model"],
) -> None:
    """Puts sound that a stage reads as it entered into what each group changes at its keys."""
    for block in graph.blocks:
        if block.stage == number and block.own and block.key_group in groups:
            at = places(stage.keys, graph.groups[block.key_group].columns)
            changes[groups.index(block.key_group), at] = wide(writes.of(block)[0])


def main_layers(nats: Float[np.ndarray, "layers"]) -> tuple[int, int]:
    """The shortest run of layers that carries most of a stretch's part: first and last.

    Of equally short ones the one that carries most.
    """
    total = float(nats.sum())
    sums = np.concatenate([[0.0], np.cumsum(nats)])
    for length in range(1, len(nats) + 1):
        carried = (sums[length:] - sums[:-length]) * np.sign(total)
        best = int(carried.argmax())
        if carried[best] >= MOST * abs(total):
            return best, best + length - 1
    return 0, len(nats) - 1

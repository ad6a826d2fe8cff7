"""What edges outside of a circuit carry, other than the corrupt run's: nothing, or a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from palscope._circuits.graph import Graph
from palscope._circuits.observed import FINAL, Observed, memory_hook, norm_hook, observe
from palscope._circuits.writes import Writes, places, writes_of
from palscope._hooks import HookedAudioModel
from palscope.errors import PalscopeError
from palscope.measures._metrics import Answers


def zero_writes(writes: Writes) -> Writes:
    """Nodes that write nothing; what no node writes, such as biases of projections, is left."""
    return writes.scaled(0.0)


@torch.no_grad()
def mean_writes(
    model: HookedAudioModel, prompts: Sequence[tuple[Mapping[str, Any], Graph]], answers: Answers
) -> Writes:
    """The mean of what each node writes, over prompts and the tokens of its group.

    Args:
        prompts: inputs, with the answers' common beginning behind them, and the graph of each.
        answers: as in `exact_effects`.

    Returns:
        One token a group, which stands for any number of them.

    Raises:
        PalscopeError: the graphs are not of one shape, or there are none.
    """
    if len({graph.shape for _, graph in prompts}) != 1:
        raise PalscopeError("means are over prompts whose graphs have the same nodes and edges.")
    found: list[Writes] = []
    for inputs, graph in prompts:
        found.append(writes_of(model, graph, observe(model, inputs, graph, answers)))

    def mean(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([part.mean(1, keepdim=True) for part in parts]).mean(0)

    groups = [mean(parts) for parts in zip(*(each.residual for each in found), strict=True)]
    return Writes(
        tuple(groups), {node: mean([each.own[node] for each in found]) for node in found[0].own}
    )


def written_instead(
    model: HookedAudioModel, graph: Graph, run: Observed, writes: Writes, instead: Writes
) -> Observed:
    """The states of a run in which nodes write something else: sums, nothing is run.

    Args:
        model: of the run.
        graph: whose nodes.
        run: whose states are moved.
        writes: of this run.
        instead: by tokens, or one token for all of a group.

    Returns:
        No gradients, and no metric: NaN.

    Raises:
        PalscopeError: features in the encoder are nodes, which are no sum in the decoder.
    """
    if graph.features_of(None) is not None:
        raise PalscopeError(
            "where features in the encoder are nodes, edges outside of a circuit carry the corrupt "
            "run: of nothing, or of a mean, the encoder would make a sound of its own."
        )
    change = instead - writes
    values = dict(run.values)

    def move(hook: str, axis: Tensor, stage: int) -> None:
        """Add what nodes below a stage write more to a state, wherever their group stands there."""
        state = values[hook].clone()
        standing: list[int] = axis.tolist()
        for nodes, moved, group in zip(graph.written, change.residual, graph.groups, strict=True):
            below = sum(graph.nodes[node].stage < stage for node in nodes)
            if below and set(group.columns) <= set(standing):
                state[places(axis, group.columns)] += moved[:below].sum(0).to(state)
        values[hook] = state

    for number, stage in enumerate(graph.stages):
        columns = graph.columns[stage.layer]
        move(norm_hook(stage), columns.running[0], number)
        memory = memory_hook(model, stage.layer)
        if stage.part == "attn" and memory in values:
            move(memory, columns.audio[0], number)
    move(FINAL, columns_at_last(graph), len(graph.stages))
    for node, moved in change.own.items():
        entering = graph.nodes[node]
        layers = range(graph.route.n_layers) if entering.layer is None else (entering.layer,)
        for layer in layers:
            axis = graph.columns[layer].audio[0]
            group = graph.groups[entering.group].columns
            standing: list[int] = axis.tolist()
            if set(group) <= set(standing):
                state = values[memory_hook(model, layer)]  # a copy: `move` made it
                state[places(axis, group)] += moved[0].to(state)
    return Observed(run.inputs, values, {}, float("nan"))


def columns_at_last(graph: Graph) -> Tensor:
    """The columns that leave the last layer."""
    return graph.columns[-1].running[0]

"""What nodes write into the residual stream, or into one layer's keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._circuits.graph import Block, Graph, Node
from palscope._circuits.local import Attention
from palscope._circuits.observed import FINAL, Observed, memory_hook, norm_hook, output_hook
from palscope._hooks import HookedAudioModel


@dataclass(frozen=True, eq=False)
class Writes:
    """What each node writes in a run, or its difference between two, at its group's tokens.

    Attributes:
        residual: for each group, of the nodes that write there, in their order.
        own: by node, of sound that enters one layer's keys, or those of all second attentions.
    """

    residual: tuple[Float[Tensor, "_nodes _tokens d_model"], ...]
    own: dict[int, Float[Tensor, "1 _tokens d_model"]]

    def of(self, block: Block) -> Float[Tensor, "sources tokens d_model"]:
        """Of a block's sources."""
        if block.own:
            return self.own[block.sources[0]]
        return self.residual[block.key_group][: len(block.sources)]

    def __sub__(self, other: Writes) -> Writes:
        return self._with(other, torch.sub)

    def scaled(self, factor: float) -> Writes:
        """All of them times a factor."""
        return self._with(self, lambda mine, _: factor * mine)

    def _with(self, other: Writes, made: Callable[[Tensor, Tensor], Tensor]) -> Writes:
        pairs = zip(self.residual, other.residual, strict=True)
        return Writes(
            tuple(made(mine, theirs) for mine, theirs in pairs),
            {node: made(mine, other.own[node]) for node, mine in self.own.items()},
        )


def places(axis: Int[Tensor, "columns"], columns: Sequence[int]) -> Int[Tensor, "places"]:
    """Where columns stand on an axis that has them all, in their order."""
    standing: list[int] = axis.tolist()
    return torch.tensor([standing.index(column) for column in columns])


def entry(graph: Graph, node: Node) -> tuple[int, bool]:
    """The layer where sound or text that enters first stands, and whether it runs there."""
    column = graph.groups[node.group].columns[0]
    layers = range(graph.route.n_layers) if node.layer is None else (node.layer,)
    for layer in layers:
        here = graph.columns[layer]
        if node.layer is None and column in here.running[0].tolist():
            return layer, True
        if column in here.audio[0].tolist():
            return layer, False
    raise AssertionError(f"{node} stands nowhere")


def entered(
    model: HookedAudioModel, graph: Graph, node: Node, run: Observed
) -> Float[Tensor, "tokens d_model"]:
    """What enters at a group, before any node has written there."""
    layer, runs = entry(graph, node)
    here = graph.columns[layer]
    columns = graph.groups[node.group].columns
    if not runs:
        return run.values[memory_hook(model, layer)][places(here.audio[0], columns)]
    stage = next(each for each in graph.stages if (each.layer, each.part) == (layer, "attn"))
    return run.values[norm_hook(stage)][places(here.running[0], columns)]


@torch.no_grad()
def writes_of(model: HookedAudioModel, graph: Graph, run: Observed) -> Writes:
    """What each node writes in a run, all on the device of the answer."""
    home = run.values[FINAL].device
    made: dict[int, Tensor] = {}
    inside: dict[int, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        if node.kind in ("sound", "text"):
            made[index] = entered(model, graph, node, run).to(home)
        elif node.kind != "answer":
            inside.setdefault(node.stage, []).append(index)
    for number, indices in inside.items():
        stage = graph.stages[number]
        out = run.values[output_hook(stage)]
        columns = graph.columns[stage.layer]
        if stage.part == "mlp":
            out = out[:, None]  # with Granite's multiplier
        else:
            out = torch.einsum("thk,hdk->thd", out, Attention(model, graph, stage).write())
        out = out.to(home)
        axis = (columns.fed if stage.part == "mlp" else columns.running)[0]
        for index in indices:
            node = graph.nodes[index]
            made[index] = out[places(axis, graph.groups[node.group].columns), node.head or 0]
    width = run.values[FINAL].shape[-1]
    residual = tuple(
        torch.stack([made[index] for index in ids])
        if ids
        else torch.empty(0, len(group.columns), width, device=home)
        for ids, group in zip(graph.written, graph.groups, strict=True)
    )
    written = {index for ids in graph.written for index in ids}
    return Writes(
        residual, {index: each[None] for index, each in made.items() if index not in written}
    )

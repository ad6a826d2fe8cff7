"""How far what nodes write differs between two runs: what an exchanged edge moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._circuits.graph import Block, Graph, Node
from palscope._circuits.local import Attention, residual_multiplier
from palscope._circuits.observed import FINAL, Observed, memory_hook, norm_hook, output_hook
from palscope._hooks import HookedAudioModel


@dataclass(frozen=True, eq=False)
class Writes:
    """Differences of what nodes write, at the tokens of their group.

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


def places(axis: Int[Tensor, "columns"], columns: tuple[int, ...]) -> Int[Tensor, "places"]:
    """Where columns stand on an axis that has them all, in order."""
    return torch.tensor([int((axis == column).nonzero()[0, 0]) for column in columns])


def entered(
    model: HookedAudioModel, graph: Graph, node: Node, run: Observed
) -> Float[Tensor, "tokens d_model"]:
    """What enters at a group: where its tokens first stand, before any node has written there."""
    columns = graph.groups[node.group].columns
    for layer in range(graph.route.n_layers):
        if node.layer is not None and layer != node.layer:
            continue
        here = graph.layout.layer_columns(graph.route, layer)
        if node.layer is None and int(columns[0]) in here.running[0]:
            stage = next(s for s in graph.stages if s.layer == layer and s.part == "attn")
            return run.values[norm_hook(stage)][places(here.running[0], columns)]
        if int(columns[0]) in here.audio[0]:
            return run.values[memory_hook(model, layer)][places(here.audio[0], columns)]
    raise AssertionError(f"{node} stands nowhere")


@torch.no_grad()
def differences(model: HookedAudioModel, graph: Graph, there: Observed, here: Observed) -> Writes:
    """What each node writes in the run `there`, less what it writes `here`."""
    made: dict[int, Tensor] = {}
    for number, stage in enumerate(graph.stages):
        change = there.values[output_hook(stage)] - here.values[output_hook(stage)]
        columns = graph.layout.layer_columns(graph.route, stage.layer)
        axis = (columns.fed if stage.part == "mlp" else columns.running)[0]
        if stage.part == "mlp":
            change = change * residual_multiplier(model, stage.layer)
        else:
            write = Attention(model, graph, stage).write()
            change = torch.einsum("thk,hdk->htd", change, write)
        for index, node in enumerate(graph.nodes):
            if node.stage == number and node.kind != "answer":
                at = places(axis, graph.groups[node.group].columns)
                made[index] = change[at] if node.head is None else change[node.head, at]
    for index, node in enumerate(graph.nodes):
        if node.stage < 0:
            made[index] = entered(model, graph, node, there) - entered(model, graph, node, here)
    width = there.values[FINAL].shape[-1]
    residual = [
        torch.stack([made[index] for index in ids])
        if ids
        else torch.empty(0, len(group.columns), width)
        for ids, group in zip(graph.written, graph.groups, strict=True)
    ]
    written = {index for ids in graph.written for index in ids}
    own = {
        index: made[index][None]
        for index, node in enumerate(graph.nodes)
        if node.stage < 0 and index not in written
    }
    return Writes(tuple(residual), own)

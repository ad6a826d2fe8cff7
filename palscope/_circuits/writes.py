"""What nodes write into the residual stream, or into one layer's keys."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._circuits.graph import Block, Graph, Node, Stage
from palscope._circuits.groups import ENCODER, PAST
from palscope._circuits.local import Attention
from palscope._circuits.networks import Network
from palscope._circuits.observed import FINAL, Observed, memory_hook, norm_hook, output_hook
from palscope._hooks import HookedAudioModel
from palscope.interventions._parts import Part


@dataclass(frozen=True, eq=False)
class Writes:
    """What each node writes in a run, or its difference between two, at its group's tokens.

    Attributes:
        residual: for each group, of the nodes that write there, in their order; of a stretch in the
            encoder in its width.
        own: by node, of sound that enters one layer's keys, or those of all second attentions.
    """

    residual: tuple[Float[Tensor, "_nodes _tokens _width"], ...]
    own: dict[int, Float[Tensor, "1 _tokens d_model"]]

    def of(self, block: Block) -> Float[Tensor, "sources tokens width"]:
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


def entry_places(
    model: HookedAudioModel, graph: Graph, number: int
) -> tuple[str, Int[Tensor, "tokens"]]:
    """The hook point where sound or text that enters first stands, and its places there."""
    node = graph.nodes[number]
    layer, runs = entry(graph, node)
    here = graph.columns[layer]
    columns = graph.groups[node.group].columns
    if not runs:
        return memory_hook(model, layer), places(here.audio[0], columns)
    stage = next(each for each in graph.stages if (each.layer, each.part) == (layer, "attn"))
    return norm_hook(stage), places(here.running[0], columns)


def entry_parts(model: HookedAudioModel, graph: Graph, node: Node) -> list[Part]:
    """The hook points, with their tokens, at which sound enters: what is put there is heard."""
    layer, runs = entry(graph, node)
    columns = torch.tensor(graph.groups[node.group].columns)
    layers = [layer]
    if not runs and node.layer is None:  # every layer reads it as it came
        layers = [each for each in range(graph.route.n_layers) if _reads(graph, columns, each)]
    hooks = {
        each: f"blocks.{each}.hook_resid_pre" if runs else memory_hook(model, each)
        for each in layers
    }
    axis = "running" if runs else "memory"
    return [Part(hook, axis, 0, columns, layer=each) for each, hook in hooks.items()]


def _reads(graph: Graph, columns: Int[Tensor, "columns"], layer: int) -> bool:
    """Whether a layer reads all of these columns of sound."""
    return bool(torch.isin(columns, graph.columns[layer].audio).all())


def entered(
    model: HookedAudioModel, graph: Graph, number: int, run: Observed
) -> Float[Tensor, "tokens d_model"]:
    """What enters at a group, before any node has written there."""
    hook, at = entry_places(model, graph, number)
    return run.values[hook][at]


@torch.no_grad()
def writes_of(model: HookedAudioModel, graph: Graph, run: Observed) -> Writes:
    """What each node writes in a run, all on the device of the answer."""
    home = run.values[FINAL].device
    made: dict[int, Tensor] = {}
    inside: dict[int, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        if node.kind in ("sound", "text"):
            made[index] = entered(model, graph, index, run).to(home)
        elif node.stage in range(len(graph.stages)):
            inside.setdefault(node.stage, []).append(index)
    for number, indices in inside.items():
        stage = graph.stages[number]
        if stage.part == "mlp":
            made |= _of_networks(model, graph, run, stage, indices)
            continue
        out = torch.einsum(
            "thk,hdk->thd",
            run.values[output_hook(stage)],
            Attention(model, graph, stage).write(),
        ).to(home)
        running = graph.columns[stage.layer].running[0]
        for index in indices:
            node = graph.nodes[index]
            made[index] = out[places(running, graph.groups[node.group].columns), node.head]
    made |= _in_encoder(graph, run)
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


def _of_networks(
    model: HookedAudioModel, graph: Graph, run: Observed, stage: Stage, nodes: Sequence[int]
) -> dict[int, Float[Tensor, "_tokens d_model"]]:
    """What a layer's networks and their features write, with Granite's multiplier."""
    out = run.values[output_hook(stage)]
    columns = graph.columns[stage.layer]
    made: dict[int, Tensor] = {}
    for group, every in itertools.groupby(nodes, lambda index: graph.nodes[index].group):
        at = graph.groups[group].columns
        whole = out[places(columns.fed[0], at)]
        states = run.state(stage)[places(columns.running[0], at)]
        parts = Network(model, graph, stage.layer, group).parts_of(whole, states)
        made |= zip(every, parts.to(run.values[FINAL].device), strict=True)
    return made


def _in_encoder(graph: Graph, run: Observed) -> dict[int, Float[Tensor, "_tokens _width"]]:
    """What stands in the encoder, as features and the rest."""
    place = graph.features_of(None)
    made: dict[int, Tensor] = {}
    if place is not None:
        states = run.values[place.hook_point]
        home = run.values[FINAL].device
        for group, nodes in zip(graph.groups, graph.written, strict=True):
            if group.stream == ENCODER:
                latents = place.latents.get(group.name, ())
                mine = states[list(group.columns)]
                parts = place.split(mine, place.acts(mine, latents), latents)
                made |= zip(nodes, parts.to(home), strict=True)
            elif group.stream == PAST:
                made[nodes[0]] = run.inputs["input_features"].flatten()[None].to(home)
    return made

"""Edges' effects estimated by gradients: EAP, and EAP along the line between two runs (EAP-IG).

An estimate is the difference of what the source writes times the metric's gradient for that one
input of the target: the effect of exchanging the edge, to first order.

Sources: Syed et al. 2023 (arXiv 2310.10348; EAP), Hanna et al. 2024 (arXiv 2403.17806; EAP-IG on
inputs). Their code takes the line's points at its steps' beginnings; here they are in the middle of
the steps, which is nearer to the line's mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._circuits.graph import Block, Graph
from palscope._circuits.local import Heads, attention_weights, check_adds_up, heads_of
from palscope._circuits.observed import (
    FINAL,
    Observed,
    memory_hook,
    norm_hook,
    observe,
    output_hook,
)
from palscope._circuits.writes import Writes, entered, entry, places, writes_of
from palscope._hooks import HookedAudioModel
from palscope._whole import whole_number
from palscope.interventions import Address
from palscope.interventions._apply import Bound, in_force
from palscope.interventions._resolve import Part, Resolved
from palscope.measures._gradients import Moved
from palscope.measures._metrics import Answers
from palscope.measures._patching import Direction, source_and_target


def eap(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    graph: Graph,
    *,
    answers: Answers,
    direction: Direction = "noising",
) -> Float[np.ndarray, "edges"]:
    """Edge attribution patching: two forward passes, a backward pass, and one through each node.

    Args:
        clean: as in `exact_effects`, like all others.
        corrupt: likewise.
        graph: likewise.
        answers: likewise.
        direction: `noising` takes the clean run's gradient, as Syed et al. do; `denoising` the
            corrupt run's, as TransformerLens does.

    Returns:
        Estimates in nats, in the graph's order.
    """
    check_adds_up(model)
    source, target = source_and_target(clean, corrupt, answers, direction)
    here = observe(model, target, graph, answers, gradients=True)
    there = observe(model, source, graph, answers)
    writes = writes_of(model, graph, there) - writes_of(model, graph, here)
    return attributed(model, graph, here, writes)


def eap_ig(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    graph: Graph,
    *,
    answers: Answers,
    direction: Direction = "noising",
    steps: int = 5,
) -> Float[np.ndarray, "edges"]:
    """EAP with the gradient's mean over the line between the runs' sound, behind its projectors.

    Args:
        clean: as in `exact_effects`, like all others that are not named here.
        corrupt: likewise.
        graph: likewise.
        answers: likewise.
        direction: likewise; the estimates of the two are each other's opposites.
        steps: points of the line, in the middle of as many equal steps; each takes a forward and a
            backward pass.

    Returns:
        Estimates in nats, in the graph's order.

    Raises:
        PalscopeError: as `exact_effects`, or `steps` is not positive.
    """
    steps = whole_number(steps, "steps", least=1)
    check_adds_up(model)
    source, target = source_and_target(clean, corrupt, answers, direction)
    here, there = (observe(model, each, graph, answers) for each in (target, source))
    writes = writes_of(model, graph, there) - writes_of(model, graph, here)
    scores = np.zeros(graph.n_edges)
    for step in range(steps):
        placed = _sound_between(model, graph, here, there, (step + 0.5) / steps)
        run = observe(
            model,
            target,
            graph,
            answers,
            gradients=True,
            within=in_force(model, target, placed),
        )
        scores += attributed(model, graph, run, writes) / steps
    return scores


def attributed(
    model: HookedAudioModel, graph: Graph, run: Observed, writes: Writes
) -> Float[np.ndarray, "edges"]:
    """Each edge's part of `writes` times the gradient, in `run`, of the input that it enters."""
    scores = np.zeros(graph.n_edges)
    for number, blocks in itertools.groupby(graph.blocks, lambda block: block.stage):
        heads = heads_of(model, graph, number, run)
        pulled = None if heads is None else _Pulled(graph, run, heads)
        for alike in _reading_alike(blocks):
            change = writes.of(alike[0])
            if not bool(change.any()):
                continue
            if pulled is None:
                gradients = _gradient(graph, alike[0], run)
            else:
                gradients = pulled.gradients(alike)
            made = change.flatten(1).to(gradients) @ gradients.flatten(2).flatten(0, 1).mT
            for block, part in zip(alike, made.chunk(len(alike), 1), strict=True):
                scores[block.edges] = part.flatten().cpu().numpy()
    return scores


_TOGETHER = 2**24
"""Numbers in the gradients that are held at once: 64 MiB in float32."""


def _reading_alike(blocks: Iterable[Block]) -> list[list[Block]]:
    """A stage's blocks by what they read: their sources and their slot are the same."""
    found: dict[tuple[str, int], list[Block]] = {}
    for block in blocks:
        found.setdefault((block.slot, block.key_group), []).append(block)
    return list(found.values())


def _gradient(
    graph: Graph, block: Block, run: Observed
) -> Float[Tensor, "1 targets tokens d_model"]:
    """Of what enters a feed-forward network, or the answer."""
    if block.slot == "answer":
        return run.gradients[FINAL][None, None, -1:]
    stage = graph.stages[block.stage]
    running = graph.layout.layer_columns(graph.route, stage.layer).running[0]
    at = places(running, graph.groups[block.group].columns)
    return run.gradients[norm_hook(stage)][None, None, at]


class _Pulled:
    """Gradients of a stage's heads' outputs, pulled back to the states that enter each head.

    Softmax is differentiated here, where queries of a group are told apart; the way from states to
    queries, keys and values is the model's own, pulled back for many heads and groups of queries
    at once.
    """

    def __init__(self, graph: Graph, run: Observed, heads: Heads) -> None:
        self.graph, self.heads = graph, heads
        query, keys, values = heads.query, heads.keys, heads.values
        self.weights = attention_weights(query, keys, heads.attention.seen)
        wide = self.weights.dtype
        hook = output_hook(graph.stages[heads.number])
        self.outputs = run.gradients[hook].transpose(0, 1).to(wide)  # [heads, queries, head_dim]
        of_weights = self.outputs @ values.to(wide).mT
        held = (of_weights * self.weights).sum(-1, keepdim=True)
        self.scores = self.weights * (of_weights - held)

    def gradients(self, alike: list[Block]) -> Float[Tensor, "blocks targets tokens d_model"]:
        """Of each head's own input, for blocks that read the same."""
        heads, slot = self.heads, alike[0].slot
        groups = [self.graph.groups[block.group].columns for block in alike]
        if slot == "q":
            at = places(heads.attention.running, groups[0])
            columns = heads.attention.running[at]
            return _pull(
                lambda states: heads.attention.project(states, columns)[0],
                heads.state[at],
                (self.scores[:, at] @ heads.keys.to(self.scores))[None],
            )
        columns = self.graph.groups[alike[0].key_group].columns
        to = places(heads.attention.keys, columns)
        left = self.weights if slot == "v" else self.scores
        right = self.outputs if slot == "v" else heads.query.to(self.scores)
        made = [
            left[:, at][:, :, to].mT @ right[:, at]
            for at in (places(heads.attention.running, group) for group in groups)
        ]
        states, project = heads.entering(columns)
        return _pull(lambda each: project(each)[slot == "v"], states, torch.stack(made))


def _pull(
    project: Callable[[Tensor], Tensor],
    states: Float[Tensor, "tokens d_model"],
    gradients: Float[Tensor, "blocks heads tokens head_dim"],
) -> Float[Tensor, "blocks heads tokens d_model"]:
    """The gradient for `states` of each block and head by itself, of what `project` makes."""
    blocks, heads = gradients.shape[:2]
    with torch.enable_grad():
        leaf = states.detach()[None].clone().requires_grad_()
        made = project(leaf)  # [1, heads or key-value heads, tokens, head_dim]
        own = torch.arange(heads) * made.shape[1] // heads
        found: list[Tensor] = []
        for some in gradients.split(max(1, _TOGETHER // (heads * leaf.numel()))):
            wanted = made.new_zeros(len(some), heads, *made.shape)
            wanted[:, torch.arange(heads), 0, own] = some.to(made)
            (pulled,) = torch.autograd.grad(
                made, leaf, wanted.flatten(0, 1), retain_graph=True, is_grads_batched=True
            )
            found.append(pulled[:, 0])
    return torch.cat(found).unflatten(0, (blocks, heads))


def _sound_between(
    model: HookedAudioModel, graph: Graph, here: Observed, there: Observed, share: float
) -> list[tuple[Bound, int]]:
    """Changes that put sound, as it enters, so far on its way from one run to the other."""
    placed: list[tuple[Bound, int]] = []
    for node in graph.nodes:
        if node.kind != "sound":
            continue
        mine, theirs = (entered(model, graph, node, run) for run in (here, there))
        values = mine + share * (theirs - mine)
        layer, runs = entry(graph, node)
        columns = torch.tensor(graph.groups[node.group].columns)
        layers = [layer]
        if not runs and node.layer is None:  # every layer reads it as it came
            layers = [each for each in range(graph.route.n_layers) if _reads(graph, columns, each)]
        for each in layers:
            hook = f"blocks.{each}.hook_resid_pre" if runs else memory_hook(model, each)
            part = Part(hook, "running" if runs else "memory", 0, columns, layer=each)
            resolved = Resolved(Address("audio_state"), (part,), pd.DataFrame)
            moved = Moved({(hook, 0): values}, replaces=True)
            placed.append((Bound(resolved, moved), 0))
    return placed


def _reads(graph: Graph, columns: Int[Tensor, "columns"], layer: int) -> bool:
    """Whether a layer reads all of these columns of sound."""
    return bool(torch.isin(columns, graph.layout.layer_columns(graph.route, layer).audio).all())

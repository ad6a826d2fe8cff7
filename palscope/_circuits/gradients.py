"""Edges' effects estimated by gradients: EAP, and EAP along the line between two runs (EAP-IG).

An estimate is the difference of what the source writes times the metric's gradient for that one
input of the target: the effect of exchanging the edge, to first order.

Sources: Syed et al. 2023 (arXiv 2310.10348; EAP), Hanna et al. 2024 (arXiv 2403.17806; EAP-IG on
inputs). Their code takes the line's points at its steps' beginnings; here they are in the middle of
the steps, which is nearer to the line's mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.compared import Compared, compared
from palscope._circuits.entering import Below, Entering, placed
from palscope._circuits.graph import Block, Graph
from palscope._circuits.local import Heads, attention_weights, heads_of, wide
from palscope._circuits.networks import Network
from palscope._circuits.observed import (
    FINAL,
    Observed,
    norm_hook,
    observe,
    output_hook,
)
from palscope._circuits.writes import Writes, entered, entry_parts, places
from palscope._hooks import HookedAudioModel
from palscope._whole import whole_number
from palscope.interventions import Address
from palscope.interventions._apply import Bound, in_force
from palscope.interventions._parts import Resolved
from palscope.measures._gradients import Moved
from palscope.measures._metrics import Answers
from palscope.measures._patching import Direction


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
    runs = compared(model, clean, corrupt, graph, answers, direction, gradients=True)
    return attributed(model, graph, runs.here, runs.change)


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

    Where features in the encoder are nodes, the line is between the encoder's tokens at their site.

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
    runs = compared(model, clean, corrupt, graph, answers, direction)
    scores = np.zeros(graph.n_edges)
    for step in range(steps):
        inputs, within = on_the_line(model, graph, runs, (step + 0.5) / steps)
        run = observe(model, inputs, graph, answers, gradients=True, within=within)
        scores += attributed(model, graph, run, runs.change) / steps
    return scores


def attributed(
    model: HookedAudioModel, graph: Graph, run: Observed, writes: Writes
) -> Float[np.ndarray, "edges"]:
    """Each edge's part of `writes` times the gradient, in `run`, of the input that it enters."""
    scores = np.zeros(graph.n_edges)
    moved = [bool(each.any()) for each in writes.residual]
    entering = Entering.of(model, graph, run)
    of_sound: dict[int, Tensor] = {}
    for number, every in itertools.groupby(graph.blocks, lambda block: block.stage):
        if number < 0:
            continue
        blocks = [
            block
            for block in every
            if block.own or moved[block.key_group] or _wanted_below(block, entering)
        ]
        heads = heads_of(model, graph, number, run)
        if heads is None:
            found = ((block, _gradient(model, graph, block, run)) for block in blocks)
        else:
            found = _Pulled(graph, run, heads).gradients(blocks)
        for block, gradient in found:
            scores[block.edges] = _products(writes, block, gradient)
            if _wanted_below(block, entering):
                more = gradient.sum(0).to(run.values[FINAL])
                source = block.sources[0]
                of_sound[source] = of_sound[source] + more if source in of_sound else more
    if entering is not None:
        pulled = entering.gradients(Below.of(entering.place, run), of_sound)
        for block in graph.blocks:
            if block.slot == "sound":
                group = graph.groups[block.key_group]
                gradient = torch.cat([pulled[node].at(group) for node in block.targets])
                scores[block.edges] = _products(writes, block, gradient)
    return scores


def _wanted_below(block: Block, entering: Entering | None) -> bool:
    """Whether gradients of what a block reads go on into the encoder, whether it moves or not."""
    return entering is not None and block.sources[0] in entering.nodes


def _products(
    writes: Writes, block: Block, gradient: Float[Tensor, "targets tokens width"]
) -> Float[np.ndarray, "edges"]:
    """What sources write times the gradients of targets' inputs."""
    slope = wide(gradient.flatten(1))
    change = writes.of(block).flatten(1).to(slope)
    return (change @ slope.mT).flatten().cpu().numpy()


_TOGETHER = 2**24
"""Numbers in the gradients that are held at once: 64 MiB in float32."""


def _gradient(
    model: HookedAudioModel, graph: Graph, block: Block, run: Observed
) -> Float[Tensor, "targets tokens d_model"]:
    """Of what enters a feed-forward network and its features, or the answer."""
    if block.slot == "answer":
        return run.gradients[FINAL][None, -1:]
    stage = graph.stages[block.stage]
    standing, at = graph.columns[stage.layer], graph.groups[block.group].columns
    running = places(standing.running[0], at)
    return Network(model, graph, stage.layer, block.group).gradients(
        run.state(stage)[running],
        run.gradients[output_hook(stage)][places(standing.fed[0], at)],
        run.gradients[norm_hook(stage)][running],
    )


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

    def gradients(
        self, blocks: Sequence[Block]
    ) -> Iterator[tuple[Block, Float[Tensor, "heads tokens d_model"]]]:
        """Of each block, the gradient of each head's own input."""
        yield from self._of_queries([block for block in blocks if block.slot == "q"])
        for slot, read in itertools.product(("k", "v"), (False, True)):
            yield from self._of_keys(
                [b for b in blocks if b.slot == slot and self._is_read(b) == read]
            )

    def _is_read(self, block: Block) -> bool:
        read: list[int] = self.heads.attention.keys[: self.heads.attention.n_read].tolist()
        return self._columns(block.key_group)[0] in read

    def _columns(self, group: int) -> tuple[int, ...]:
        return self.graph.groups[group].columns

    def _of_queries(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, Tensor]]:
        if not blocks:
            return
        attention = self.heads.attention
        at = places(attention.running, [c for block in blocks for c in self._columns(block.group)])
        columns = attention.running[at]
        (found,) = _pull(
            lambda states: attention.project(states, columns)[0],
            self.heads.state[at],
            (self.scores[:, at] @ self.heads.keys.to(self.scores))[None],
        )
        for block in blocks:
            yield block, found[:, places(columns, self._columns(block.group))]

    def _of_keys(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, Tensor]]:
        """Of keys or values, of blocks whose keys are all read, or all of running tokens."""
        if not blocks:
            return
        attention, slot = self.heads.attention, blocks[0].slot
        left = self.weights if slot == "v" else self.scores
        right = self.outputs if slot == "v" else self.heads.query.to(self.scores)
        groups = list(dict.fromkeys(block.key_group for block in blocks))
        columns = [column for group in groups for column in self._columns(group)]
        to = places(attention.keys, columns)
        states, project = self.heads.entering(columns)
        queries = list(dict.fromkeys(block.group for block in blocks))
        size = max(1, _TOGETHER // (states.numel() * len(left)))
        for some in (queries[first : first + size] for first in range(0, len(queries), size)):
            made = [
                left[:, at][:, :, to].mT @ right[:, at]
                for at in (places(attention.running, self._columns(group)) for group in some)
            ]
            found = _pull(lambda each: project(each)[slot == "v"], states, torch.stack(made))
            of = dict(zip(some, found, strict=True))
            those = [block for block in blocks if block.group in of]
            for block in those:
                at = places(torch.tensor(columns), self._columns(block.key_group))
                yield block, of[block.group][:, at]


def _pull(
    project: Callable[[Tensor], Tensor],
    states: Float[Tensor, "tokens d_model"],
    gradients: Float[Tensor, "groups heads tokens head_dim"],
) -> Float[Tensor, "groups heads tokens d_model"]:
    """The gradient for `states` of each group and head by itself, of what `project` makes."""
    groups, heads = gradients.shape[:2]
    with torch.enable_grad():
        leaf = states.detach()[None].clone().requires_grad_()
        made = project(leaf)  # [1, heads or key-value heads, tokens, head_dim]
        own = torch.arange(heads) * made.shape[1] // heads
        wanted = made.new_zeros(groups, heads, *made.shape)
        wanted[:, torch.arange(heads), 0, own] = gradients.to(made)
        (found,) = torch.autograd.grad(made, leaf, wanted.flatten(0, 1), is_grads_batched=True)
    return found[:, 0].unflatten(0, (groups, heads))


def on_the_line(
    model: HookedAudioModel, graph: Graph, runs: Compared, share: float, *, encoder: bool = True
) -> tuple[Mapping[str, Any], AbstractContextManager[Any]]:
    """Inputs, and a block within which sound is so far on its way from one run to the other.

    Args:
        encoder: what stands below the decoder is, where features there are nodes, and sound follows
            it; else sound is, as it enters.
    """
    place = graph.features_of(None)
    if encoder and place is not None:
        mine, theirs = (Below.of(place, run) for run in (runs.here, runs.there))
        now = mine.between(theirs, share)
        return {**runs.inputs, "input_features": now.clip}, placed(model, place, now.tokens)
    changes = _sound_between(model, graph, runs.here, runs.there, share)
    return runs.inputs, in_force(model, runs.inputs, changes)


def _sound_between(
    model: HookedAudioModel, graph: Graph, here: Observed, there: Observed, share: float
) -> list[tuple[Bound, int]]:
    """Changes that put sound, as it enters, so far on its way from one run to the other."""
    changes: list[tuple[Bound, int]] = []
    for number, node in enumerate(graph.nodes):
        if node.kind != "sound":
            continue
        mine, theirs = (entered(model, graph, number, run) for run in (here, there))
        values = mine + share * (theirs - mine)
        for part in entry_parts(model, graph, node):
            resolved = Resolved(Address("audio_state"), (part,), pd.DataFrame)
            moved = Moved({(part.hook, 0): values}, replaces=True)
            changes.append((Bound(resolved, moved), 0))
    return changes

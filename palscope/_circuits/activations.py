"""EAP-IG along the nodes' own outputs, one stage after the other.

Source: Hanna et al. 2024 (arXiv 2403.17806) and its code, which calls this EAP-IG on activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._circuits.compared import Compared, compared
from palscope._circuits.gradients import attributed, on_the_line
from palscope._circuits.graph import Graph
from palscope._circuits.observed import observe, output_hook
from palscope._circuits.writes import Writes
from palscope._hooks import HookedAudioModel
from palscope._hooks.hooked import hooked
from palscope._whole import whole_number
from palscope.measures._metrics import Answers
from palscope.measures._patching import Direction


def eap_ig_activations(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    graph: Graph,
    *,
    answers: Answers,
    direction: Direction = "noising",
    steps: int = 5,
) -> Float[np.ndarray, "edges"]:
    """EAP with the gradient's mean over the line between the outputs of the source's stage.

    All nodes of a sublayer go from one run to the other together, while all below them stay, so
    the scores of the edges that leave them sum to what exchanging all of their outputs does. It
    takes a forward and a backward pass a step and sublayer: `2 * layers + 1` times as many as
    `eap_ig`.

    Args:
        clean: as in `exact_effects`, like all others that are not named here.
        corrupt: likewise.
        graph: likewise.
        answers: likewise.
        direction: likewise.
        steps: as in `eap_ig`, of each sublayer.

    Returns:
        Estimates in nats, in the graph's order.

    Raises:
        PalscopeError: as `exact_effects`, or `steps` is not positive.
    """
    steps = whole_number(steps, "steps", least=1)
    runs = compared(model, clean, corrupt, graph, answers, direction)
    scores = np.zeros(graph.n_edges)
    first = -1 if graph.features_of(None) is None else -2
    for stage in range(first, len(graph.stages)):
        writes = _of_stage(graph, runs.change, stage)
        for inputs, within in _line(model, graph, runs, stage, steps):
            run = observe(model, inputs, graph, answers, gradients=True, within=within)
            scores += attributed(model, graph, run, writes) / steps
    return scores


def _line(
    model: HookedAudioModel, graph: Graph, runs: Compared, stage: int, steps: int
) -> Iterator[tuple[Mapping[str, Any], AbstractContextManager[Any]]]:
    """Inputs, and changes of the run that put what a stage puts out on points between the two.

    Args:
        stage: -1 for sound that enters, -2 for the encoder's tokens.
    """
    for share in (np.arange(steps) + 0.5) / steps:
        if stage < 0:
            yield on_the_line(model, graph, runs, float(share), encoder=stage == -2)
        else:
            hook = output_hook(graph.stages[stage])
            mine, theirs = runs.here.values[hook], runs.there.values[hook]
            there = mine + float(share) * (theirs - mine)
            yield runs.inputs, hooked(model, {hook: _put(there)})


def _put(values: Tensor) -> Callable[..., Tensor]:
    def hook(tensor: Tensor, hook: Any) -> Tensor:
        return tensor - tensor + values  # what is put there has a gradient, too

    return hook


def _of_stage(graph: Graph, writes: Writes, stage: int) -> Writes:
    """The writes of a stage's nodes alone; of all others zero."""

    def kept(values: Float[Tensor, "_nodes ..."], nodes: tuple[int, ...]) -> Tensor:
        mine = torch.tensor([graph.nodes[node].stage == stage for node in nodes], dtype=torch.bool)
        return torch.where(mine.to(values.device)[:, None, None], values, 0.0)

    residual = (kept(*each) for each in zip(writes.residual, graph.written, strict=True))
    own = {node: kept(each, (node,)) for node, each in writes.own.items()}
    return Writes(tuple(residual), own)

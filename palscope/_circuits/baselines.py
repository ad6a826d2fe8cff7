"""What every score of edges stands beside: attention mass, gradient times input, chance."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from palscope._circuits.gradients import attributed
from palscope._circuits.graph import Graph
from palscope._circuits.local import Heads, attention_weights, heads_of
from palscope._circuits.observed import Observed
from palscope._circuits.writes import places, writes_of
from palscope._hooks import HookedAudioModel


@torch.no_grad()
def attention_mass_of_edges(
    model: HookedAudioModel, graph: Graph, run: Observed
) -> Float[np.ndarray, "edges"]:
    """Of edges into keys and values the attention that their head gives to these keys.

    The mean over the group's queries, 0 to 1; it knows no source from another. Other edges have 0.
    """
    scores = np.zeros(graph.n_edges)
    heads: Heads | None = None
    for block in graph.blocks:
        if block.slot not in ("k", "v"):
            continue
        if heads is None or heads.number != block.stage:
            heads = heads_of(model, graph, block.stage, run)
        assert heads is not None
        at = places(heads.attention.running, graph.groups[block.group].columns)
        to = places(heads.attention.keys, graph.groups[block.key_group].columns)
        weights = attention_weights(heads.query[:, at], heads.keys, heads.attention.seen[at])
        mass = weights[:, :, to].sum(-1).mean(-1)
        scores[block.edges] = mass.repeat(len(block.sources)).cpu().numpy()
    return scores


def gradient_times_input(
    model: HookedAudioModel, graph: Graph, run: Observed
) -> Float[np.ndarray, "edges"]:
    """What each source writes in `run` times the gradient there; no other run is asked.

    Args:
        run: observed with gradients.
    """
    return attributed(model, graph, run, writes_of(model, graph, run))


def random_scores(graph: Graph, seed: int = 0) -> Float[np.ndarray, "edges"]:
    """Chance: standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(graph.n_edges)

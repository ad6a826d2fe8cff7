"""What a circuit is worth: against known edges and seconds, and against the model's own answers.

Faithfulness, its areas CPR and CMD, and the sizes are those of MIB (Mueller et al. 2025, arXiv
2504.13151, and its public code); completeness and minimality those of Wang et al. 2023 (arXiv
2211.00593).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from palscope._statistics import auroc
from palscope.errors import PalscopeError

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of a graph's edges that MIB's circuits have."""

Seconds = tuple[float, float]
Edges = frozenset[int]
Value = Callable[[Edges], float]
"""The answer's metric, say its logit difference, of the circuit that has these edges."""


def edge_auroc(scores: Float[np.ndarray, "edges"], true: Bool[np.ndarray, "edges"]) -> float:
    """How well the size of scores tells true edges from others: 1 is all, 0.5 is chance.

    The share of pairs of a true and another edge of which the true one scores higher; equal scores
    count half (the area under the receiver operating characteristic).

    Raises:
        PalscopeError: all edges are true, or none.
    """
    count = int(true.sum())
    if not 0 < count < len(true):
        raise PalscopeError(f"{count} of {len(true)} edges are true; some must be, and some not.")
    return auroc(np.abs(scores), true)


def overlap(one: Int[np.ndarray, "_edges"], other: Int[np.ndarray, "_others"]) -> float:
    """The share of edges that two circuits have in common, of those that either has."""
    return len(np.intersect1d(one, other)) / len(np.union1d(one, other))


def seconds_iou(found: Iterable[Seconds], true: Iterable[Seconds]) -> float:
    """Seconds that are in both, over those in any: is the right second found?

    Stretches may overlap within either, and count once. Of two times nothing it is 1.
    """
    mine, theirs = _merged(found), _merged(true)
    both = sum(
        max(0.0, min(end, other[1]) - max(start, other[0]))
        for start, end in mine
        for other in theirs
    )
    whole = _length(mine) + _length(theirs) - both
    return both / whole if whole else 1.0


def faithfulness(circuit: float, nothing: float, everything: float) -> float:
    """The share of the way from no edge to all edges that a circuit goes; it may lie outside.

    Args:
        circuit: the metric with the circuit's edges, all others from the other run.
        nothing: with none.
        everything: with all: the model.

    Raises:
        PalscopeError: the two ends are the same, so that there is nothing to explain.
    """
    if everything == nothing:
        raise PalscopeError(
            f"the model's metric is {everything:g} with all of its edges and with none; take a "
            "pair whose two runs answer differently."
        )
    return (circuit - nothing) / (everything - nothing)


def cpr(faithful: Sequence[float], sizes: Sequence[float] = SIZES) -> float:
    """Circuit performance ratio: the area under faithfulness, of circuits by signed scores.

    By trapezoids over shares of edges as they are, from the smallest on: MIB's own numbers, whose
    best is therefore less than 1 by the smallest share.
    """
    return float(np.trapezoid(faithful, sizes))


def cmd(faithful: Sequence[float], sizes: Sequence[float] = SIZES) -> float:
    """Circuit–model distance: the area between faithfulness and 1, of circuits by absolute scores.

    0 is best. As `cpr`, also in that the distance is taken at each size, and only then joined.
    """
    return float(np.trapezoid(np.abs(1 - np.asarray(faithful)), sizes))


def completeness(value: Value, circuit: Edges, whole: Edges, taken: Iterable[Edges]) -> float:
    """How far a circuit is from doing as the model does when edges are taken from both.

    Args:
        value: of a set of edges.
        circuit: its edges.
        whole: all of the graph's.
        taken: sets of the circuit's edges.

    Returns:
        The largest difference over these sets, and over none, in the metric's units; 0 is best.
    """
    sets = [frozenset[int](), *taken]
    return max(abs(value(circuit - each) - value(whole - each)) for each in sets)


def minimality(
    value: Value, circuit: Edges, taken: Callable[[int], Collection[Edges]]
) -> dict[int, float]:
    """What each of a circuit's edges is needed for, at its best.

    Args:
        value: as in `completeness`.
        circuit: likewise.
        taken: of an edge, sets of other edges which are taken away before it: one of two that do
            the same is needed only when the other is gone.

    Returns:
        By edge, the largest change that taking it makes, over these sets and over none.
    """
    found: dict[int, float] = {}
    for edge in sorted(circuit):
        sets = [frozenset[int](), *taken(edge)]
        found[edge] = max(
            abs(value(circuit - each) - value(circuit - each - {edge})) for each in sets
        )
    return found


def _merged(stretches: Iterable[Seconds]) -> list[Seconds]:
    found: list[Seconds] = []
    for start, end in sorted(stretches):
        if end < start:
            raise PalscopeError(f"{start:g} to {end:g} s is no stretch: its end is before it.")
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _length(stretches: Sequence[Seconds]) -> float:
    return sum(end - start for start, end in stretches)

"""Splits of clips into parts, each held out once: whole recordings, or within them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from palscope.errors import PalscopeError


def folds_apart(
    recordings: np.ndarray, labels: np.ndarray, folds: int, seed: int = 0
) -> Int[np.ndarray, " clips"]:
    """The fold of every clip, all clips of a recording in the same one.

    Where there are as few recordings as folds or fewer, each is a fold. Else the largest come
    first, each to the fold that has fewest clips of its labels.

    Raises:
        PalscopeError: there is one recording only.
    """
    names, at = np.unique(recordings, return_inverse=True)
    if len(names) < 2:
        raise PalscopeError(
            f"all clips are of one recording ({str(names[0])!r}); a score on unseen recordings "
            "needs two at least."
        )
    if len(names) <= folds:
        return at
    sorts, kind = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(sorts)), dtype=int)
    np.add.at(counts, (at, kind), 1)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]
    held = np.zeros((folds, len(sorts)), dtype=int)
    fold_of = np.zeros(len(names), dtype=int)
    for name in order:
        alike = held[:, counts[name] > 0].sum(1)
        fold = int(np.lexsort((held.sum(1), alike))[0])
        held[fold] += counts[name]
        fold_of[name] = fold
    return fold_of[at]


def folds_within(kinds: np.ndarray, folds: int, seed: int = 0) -> Int[np.ndarray, " clips"]:
    """The fold of every clip, the clips of each kind spread evenly over folds."""
    rng = np.random.default_rng(seed)
    found = np.zeros(len(kinds), dtype=int)
    for kind in np.unique(kinds):
        mine = rng.permutation((kinds == kind).nonzero()[0])
        found[mine] = (np.arange(len(mine)) + rng.integers(folds)) % folds
    return found

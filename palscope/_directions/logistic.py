"""Logistic regression on standardised vectors: the one kind of probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy import optimize

from palscope.errors import PalscopeError

PENALTY = 1.0
"""Half of this times the weights' squares is added to the loss summed over clips."""

_TOLERANCE = 1e-5
"""Of the mean loss's gradient."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of vectors: `softmax((x - mean) / scale @ weights + bias)`.

    Attributes:
        labels: that it tells apart, in order.
        mean: of the vectors that it was fitted on.
        scale: their standard deviation, a dimension each; 1 where it is nothing.
        weights: of standardised vectors.
        bias: a label each.
    """

    labels: tuple[str, ...]
    mean: Float[np.ndarray, " width"]
    scale: Float[np.ndarray, " width"]
    weights: Float[np.ndarray, "width labels"]
    bias: Float[np.ndarray, " labels"]

    def logits(self, x: Float[np.ndarray, "clips width"]) -> Float[np.ndarray, "clips labels"]:
        """How much speaks for each label, up to a constant a clip."""
        return (x - self.mean) / self.scale @ self.weights + self.bias

    def predict(self, x: Float[np.ndarray, "clips width"]) -> np.ndarray:
        """The likeliest label of each."""
        return np.asarray(self.labels)[self.logits(x).argmax(1)]


def fit_probe(
    x: Float[np.ndarray, "clips width"], labels: np.ndarray, *, penalty: float = PENALTY
) -> Probe:
    """Multinomial logistic regression with an L2 penalty, on vectors standardised by themselves.

    Raises:
        PalscopeError: there is one label only.
    """
    names, at = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise PalscopeError(f"a probe tells labels apart; all clips have {str(names[0])!r}.")
    mean, scale = x.mean(0), x.std(0)
    scale[scale <= 1e-12 * np.abs(mean).clip(1e-300)] = 1.0  # constant, to rounding
    rows = (x - mean) / scale
    clips, width = rows.shape
    right = np.eye(len(names))[at]

    def loss(flat: Any) -> tuple[float, Any]:
        both = flat.reshape(width + 1, len(names))
        logits = rows @ both[:-1] + both[-1]
        logits -= logits.max(1, keepdims=True)
        exp = np.exp(logits)
        total = exp.sum(1, keepdims=True)
        value = (np.log(total[:, 0]) - (logits * right).sum(1)).sum()
        error = exp / total - right
        gradient = np.concatenate([rows.T @ error + penalty * both[:-1], error.sum(0)[None]])
        value += penalty / 2 * (both[:-1] ** 2).sum()
        return float(value) / clips, gradient.ravel() / clips

    found = cast(Any, optimize).minimize(
        loss,
        np.zeros((width + 1) * len(names)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "gtol": _TOLERANCE, "ftol": 1e-12},
    )
    weights = found.x.reshape(width + 1, len(names))
    return Probe(tuple(map(str, names)), mean, scale, weights[:-1], weights[-1])

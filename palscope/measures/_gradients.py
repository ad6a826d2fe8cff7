"""Gradients of an answer: of its logit difference or log-probability, for values in a run."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope.errors import PalscopeError
from palscope.interventions import Change
from palscope.interventions._apply import Bound, in_force
from palscope.interventions._cells import copies_of
from palscope.interventions._parts import Part
from palscope.measures._metrics import Answers, Metric

Values = dict[tuple[str, int], Tensor]
"""By hook point and row: `[tokens, width]`; of heads `[tokens, heads, head_dim]`."""


@dataclass(frozen=True, eq=False)
class Moved(Change):
    """Values that a gradient can be taken for: in place of those there, or added to them."""

    leaves: Values
    replaces: bool
    continues = False

    def __call__(self, part: Part, old: Tensor, which: Tensor | None = None) -> Tensor:
        leaf = self.leaves[part.hook, part.row]
        leaf = (leaf if which is None else leaf[which]).to(old)
        return leaf if self.replaces else old + leaf


def leaf(values: Tensor) -> Tensor:
    return values.detach().clone().requires_grad_(True)


def gradients_of(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    placed: Sequence[tuple[Bound, int]],
    copies: int,
    leaves: Sequence[Values],
    answers: Answers,
    metric: Metric,
) -> tuple[list[float], list[Values]]:
    """The metric of each copy of `inputs`, and its gradient for each of the leaves."""
    with torch.enable_grad(), frozen(model), in_force(model, inputs, placed, copies):
        logits = model(copies_of(inputs, copies), logits_to_keep=1)[:, -1]
        values = measured(logits.double(), answers, metric)
        flat = [leaf for each in leaves for leaf in each.values()]
        found = torch.autograd.grad(values.sum(), flat, materialize_grads=True)
    rest = iter(found)
    return values.tolist(), [{key: next(rest) for key in each} for each in leaves]


def measured(
    logits: Float[Tensor, "copies vocabulary"], answers: Answers, metric: Metric
) -> Float[Tensor, "copies"]:
    if metric == "logprob":
        return logits.log_softmax(-1)[:, answers.clean]
    if answers.corrupt is None:
        raise PalscopeError("there is no corrupt answer for a logit difference; take logprob.")
    return logits[:, answers.clean] - logits[:, answers.corrupt]


@contextmanager
def frozen(model: HookedAudioModel) -> Generator[None, None, None]:
    """Within, no weight wants a gradient: what lies below the leaves then keeps no graph."""
    with model.model.turns.block("attribution"):
        wanting = [weight for weight in model.model.parameters() if weight.requires_grad]
        try:
            for weight in wanting:
                weight.requires_grad_(False)
            yield
        finally:
            for weight in wanting:
                weight.requires_grad_(True)

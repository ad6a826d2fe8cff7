"""How probable each of several answers is, with the model as it is or under interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import answer_ids
from palscope._routing.depths import Placement
from palscope.errors import PalscopeError
from palscope.interventions import Reroute
from palscope.interventions._apply import Bound, Condition, Intervention, in_force
from palscope.interventions._cells import with_encoded


@torch.no_grad()
def choice_logprobs(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[str],
    interventions: Sequence[Intervention | Reroute] = (),
) -> Float[np.ndarray, " choices"]:
    """Log-probability (nats) of each choice as the whole answer to one prompt, its end included.

    As `palscope._models.scoring.choice_logprobs`, under interventions: the prompt runs once, and
    the choices continue from its cache. What acts on all text, or on what all text reads, acts on
    their tokens too.

    Raises:
        PalscopeError: there are several prompts, or an intervention cannot be resolved.
        HookError: a knockout cut no edge of the prompt.
    """
    if inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("choices continue one prompt; give inputs of one row.")
    ids = [answer_ids(model.processor, choice) for choice in choices]
    width = max(map(len, ids))
    device = inputs["input_ids"].device
    padded = torch.tensor([each + [0] * (width - len(each)) for each in ids], device=device)
    real = torch.tensor([[i < len(each) for i in range(width)] for each in ids], device=device)
    with Condition.of(model, interventions).bound(model, inputs) as bound:
        with in_force(model, inputs, [(each, 0) for each in bound]):
            first = model.model(**inputs, use_cache=True, logits_to_keep=1)
        cache = first.cache
        cache.batch_repeat_interleave(len(ids))
        later = [_of_later_tokens(each) for each in bound]
        placed = [(each, copy) for each in later if each.parts for copy in range(len(ids))]
        logits = first.logits.expand(len(ids), -1, -1)
        if width > 1:
            with in_force(model, inputs, placed, len(ids)):
                rest = model.model(input_ids=padded[:, :-1], cache=cache)
            logits = torch.cat([logits, rest.logits], 1)
    logp = logits.float().log_softmax(-1).gather(-1, padded[..., None])[..., 0]
    return (logp * real).sum(-1).double().cpu().numpy()


def placed_choices(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[str],
    placements: Sequence[Placement],
) -> pd.DataFrame:
    """How probable each choice is with audio in other layers, or at other levels.

    Args:
        model: rerouted to each placement in turn, whatever its current route.
        inputs: of one prompt.
        choices: the answers to rank.
        placements: of `palscope._routing.depths`, made for this decoder. One that stands in
            several families is measured once.

    Returns:
        One row a placement and choice: `family, placement, layers, first_layer, choice`, and
        `logprob` (nats) of the choice as the whole answer, its end included.

    Raises:
        PalscopeError: there are several prompts.
        RouteError: the checkpoint has no weights for a placement.
    """
    given = with_encoded(model, inputs)
    routes = {each.name: each.route for each in placements}
    logprobs = {
        name: choice_logprobs(model, given, choices, [Reroute(route)])
        for name, route in routes.items()
    }
    parts = [
        choices_table(
            {
                "family": each.family,
                "placement": each.name,
                "layers": each.layers,
                "first_layer": each.first_layer,
            },
            choices,
            logprobs[each.name],
        )
        for each in placements
    ]
    return pd.concat(parts, ignore_index=True)


def best_choices(table: pd.DataFrame, answer: str, by: Sequence[str]) -> pd.DataFrame:
    """The best of one prompt's choices under each of several changes.

    Args:
        table: a row a change and choice: `choice`, `logprob` (nats) and what names the change.
        answer: the right one.
        by: the columns that name a change.

    Returns:
        A row a change: those columns, `best`, `correct`, the answer's `logprob`, its `margin` over
        the likeliest other choice (nats), and `chance`, one over the number of choices.

    Raises:
        PalscopeError: the answer is the only choice.
    """
    whole: Any = table
    rows: list[dict[str, Any]] = []
    for names, group in whole.groupby(list(by), sort=False):
        choices, logprobs = group["choice"].tolist(), group["logprob"].to_numpy()
        if len(choices) < 2:
            raise PalscopeError(
                f"the answer {answer!r} must be one of several choices, got {choices}."
            )
        right = choices.index(answer)
        best = choices[int(np.argmax(logprobs))]
        rows.append(
            {
                **dict(zip(by, names, strict=True)),
                "best": best,
                "correct": best == answer,
                "logprob": logprobs[right],
                "margin": logprobs[right] - np.delete(logprobs, right).max(),
                "chance": 1 / len(choices),
            }
        )
    return pd.DataFrame(rows)


def choices_table(
    about: Mapping[str, Any], choices: Sequence[str], logprobs: Float[np.ndarray, " choices"]
) -> pd.DataFrame:
    """One row a choice: what is said of all of them, `choice` and `logprob` (nats)."""
    return pd.DataFrame({**about, "choice": list(choices), "logprob": logprobs})


def _of_later_tokens(bound: Bound) -> Bound:
    """What of an intervention concerns text behind the prompt: as queries, or where it stands."""
    parts = tuple(
        part
        for part in bound.parts
        if (part.onwards if part.queries is None else part.queries_onwards)
    )
    return replace(bound, resolved=replace(bound.resolved, parts=parts))

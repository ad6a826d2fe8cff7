"""How probable each of several answers is, with the model as it is or under interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import PaddedAnswers
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

    As the evaluation ranks them, under interventions: the prompt runs once, and the choices
    continue from its cache. What acts on all text, or on what all text reads, acts on their tokens
    too.

    Raises:
        PalscopeError: there are several prompts, or an intervention cannot be resolved.
        HookError: a knockout cut no edge of the prompt.
    """
    if inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("choices continue one prompt; give inputs of one row.")
    return prompts_choice_logprobs(model, inputs, [choices], interventions)[0]


@torch.no_grad()
def prompts_choice_logprobs(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[Sequence[str]],
    interventions: Sequence[Intervention | Reroute] = (),
) -> list[Float[np.ndarray, " _choices"]]:
    """`choice_logprobs` of several prompts, which share passes.

    Args:
        inputs: of so many prompts.
        choices: of each prompt.
        interventions: act on every prompt.
    """
    return choices_and_next_token(model, inputs, choices, interventions)[0]


@torch.no_grad()
def choices_and_next_token(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[Sequence[str]],
    interventions: Sequence[Intervention | Reroute] = (),
) -> tuple[list[Float[np.ndarray, " _choices"]], Float[Tensor, "prompts vocab"]]:
    """`prompts_choice_logprobs`, and those of every token behind each prompt (nats, float64)."""
    answers = PaddedAnswers.of(model.processor, choices, model.model.device)
    most, width = answers.ids.shape[1:]
    with Condition.of(model, interventions).bound(model, inputs) as bound:
        with in_force(model, inputs, [(each, 0) for each in bound]):
            first = model.model(**inputs, use_cache=True, logits_to_keep=1)
        cache = first.cache
        cache.batch_repeat_interleave(most)
        later = [_of_later_tokens(each) for each in bound]
        placed = [(each, copy) for each in later if each.parts for copy in range(most)]
        logits = first.logits.repeat_interleave(most, 0)
        if width > 1:
            with in_force(model, inputs, placed, most, interleaved=True):
                rest = model.model(input_ids=answers.continuing, cache=cache)
            logits = torch.cat([logits, rest.logits], 1)
    after_prompt = first.logits[:, -1].cpu().double().log_softmax(-1)
    return answers.logprobs(logits), after_prompt


def placed_choices(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[Sequence[str]],
    placements: Sequence[Placement],
) -> list[pd.DataFrame]:
    """How probable each choice is with audio in other layers, or at other levels.

    Args:
        model: rerouted to each placement in turn, whatever its current route.
        inputs: of prompts, which share passes.
        choices: each prompt's answers to rank.
        placements: of `palscope._routing.depths`, made for this decoder. One that stands in
            several families is measured once.

    Returns:
        A table a prompt, one row a placement and choice: `family, placement, layers, first_layer,
        choice`, and `logprob` (nats) of the choice as the whole answer, its end included.

    Raises:
        RouteError: the checkpoint has no weights for a placement.
    """
    given = with_encoded(model, inputs)
    routes = {each.name: each.route for each in placements}
    logprobs = {
        name: prompts_choice_logprobs(model, given, choices, [Reroute(route)])
        for name, route in routes.items()
    }
    about = [
        (
            {
                "family": each.family,
                "placement": each.name,
                "layers": each.layers,
                "first_layer": each.first_layer,
            },
            logprobs[each.name],
        )
        for each in placements
    ]
    return choices_tables(about, choices)


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


def choices_tables(
    found: Sequence[tuple[Mapping[str, Any], Sequence[Float[np.ndarray, " _choices"]]]],
    choices: Sequence[Sequence[str]],
) -> list[pd.DataFrame]:
    """A table a prompt, one row a change and choice: its name, `choice` and `logprob` (nats).

    Args:
        found: what names a change, and every prompt's log-probabilities under it.
        choices: of every prompt.
    """
    return [
        pd.concat(
            [
                pd.DataFrame({**about, "choice": list(offered), "logprob": logprobs[prompt]})
                for about, logprobs in found
            ],
            ignore_index=True,
        )
        for prompt, offered in enumerate(choices)
    ]


def _of_later_tokens(bound: Bound) -> Bound:
    """What of an intervention concerns text behind the prompt: as queries, or where it stands."""
    parts = tuple(
        part
        for part in bound.parts
        if (part.onwards if part.queries is None else part.queries_onwards)
    )
    return replace(bound, resolved=replace(bound.resolved, parts=parts))

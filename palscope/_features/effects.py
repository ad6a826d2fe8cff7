"""What changing single features does to an answer: a gradient for all, the largest run for real.

The estimate is attribution patching (Nanda 2023, neelnanda.io/attribution-patching) of a latent, as
Marks et al. 2024 (arXiv 2403.19647) take it: what the change makes of the latent less what it was,
times the answer's gradient. To first order it can be wrong by any amount, so that the largest are
changed for real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._features.rows import places_of
from palscope._hooks import HookedAudioModel
from palscope._whole import whole_number
from palscope.errors import PalscopeError
from palscope.interventions import Address, Change, Patch, Resample, capture, resolve, run_cells
from palscope.interventions._address import Tokens
from palscope.interventions._apply import Bound
from palscope.interventions._capture import Captured
from palscope.measures import Answers
from palscope.measures._gradients import Moved, gradients_of, leaf
from palscope.measures._metrics import answer_metrics


def feature_effects(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    change: Change,
    *,
    answers: Answers,
    tokens: Tokens | None = None,
    at: str | None = None,
    checked: int = 12,
) -> pd.DataFrame:
    """What a change of one feature at a time does to the answer; and of the error.

    Two forward passes, one with its backward pass, and `checked + 1` changes, which share passes
    (`run_cells`).

    Args:
        model: within `spliced(model, …)`, with the error term.
        inputs: of one prompt; with `input_features`, where the dictionary stands in the encoder.
        change: of each; `Resample` has the inputs of the other run, without the answer.
        answers: two, or one; the effect is on their logit difference, or on the one answer's
            log-probability.
        tokens: at which they are changed; None for all that the dictionary touches.
        at: the dictionary's hook point, where several are spliced in.
        checked: how many features are changed for real: those with the largest estimates.

    Returns:
        One row a feature that fires at the tokens, and one of the error, whose `feature` is
        missing; those that were changed first, the largest effect first: `feature, value, start_s,
        end_s, estimate, effect`. `value` is the feature's largest at a token, which stands for
        `start_s` to `end_s` (missing for text); `estimate` and `effect`, the change in nats that
        it is estimated to make and does make; `effect` is missing where it was not changed.

    Raises:
        PalscopeError: there are several prompts, no dictionary is spliced in, or it touches none of
            the tokens, or `checked` is negative.
    """
    checked = whole_number(checked, "checked", least=0)
    if inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("effects of features are of one answer: give inputs of one prompt.")
    inputs = answers.behind(inputs)
    latents, error = (Address(site, tokens, at=at) for site in ("feature", "feature_error"))
    here = capture(model, inputs, latents, error)
    if isinstance(change, Resample) and not isinstance(change.source, Captured):
        other = capture(model, answers.behind(change.source), latents, error)
        change = replace(change, source=other)  # run once, not for every feature anew
    of_features, of_error = (
        _estimate(model, inputs, place, change, here.at(model, place), answers)
        for place in (latents, error)
    )
    table: Any = _fired(model, inputs, here.at(model, latents))
    table["estimate"] = of_features.double().numpy()[table["feature"].to_numpy(dtype=int)]
    order = table["estimate"].abs().sort_values(ascending=False, kind="stable").index
    table = table.loc[order].reset_index(drop=True)
    table.loc[len(table)] = {"estimate": float(of_error.sum())}
    chosen = [*range(min(checked, len(table) - 1)), len(table) - 1]
    cells = [
        [Patch(error if row == chosen[-1] else _one(latents, table.feature[row]), change)]
        for row in chosen
    ]
    logits = run_cells(model, inputs, [[], *cells])
    found = answer_metrics(logits, answers, logits[0])[answers.metric].to_numpy()
    table.loc[chosen, "effect"] = found[1:] - found[0]
    told = table["effect"].fillna(table["estimate"]).abs()
    ordered = table.assign(told=told, changed=table["effect"].notna()).sort_values(
        ["changed", "told"], ascending=False, kind="stable"
    )
    return ordered.drop(columns=["told", "changed"]).reset_index(drop=True)


def _one(latents: Address, feature: int) -> Address:
    return replace(latents, features=(int(feature),))


def _estimate(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    place: Address,
    change: Change,
    here: Captured,
    answers: Answers,
) -> Float[Tensor, "width"]:
    """The gradient times what the change makes different, summed over tokens."""
    made, resolved = change.prepared(model, place), resolve(model, inputs, place)
    nudge = {key: leaf(torch.zeros_like(old)) for key, old in here.values.items()}
    placed = [(Bound(resolved, Moved(nudge, replaces=False)), 0)]
    _, (gradients,) = gradients_of(model, inputs, placed, 1, [nudge], answers, answers.metric)
    steps = {key: made(here.parts[key], old) - old for key, old in here.values.items()}
    return torch.stack([(gradients[key] * steps[key]).sum(0) for key in steps]).sum(0).cpu()


def _fired(model: HookedAudioModel, inputs: Mapping[str, Any], here: Captured) -> pd.DataFrame:
    """`feature, value, start_s, end_s` of those that fire, in the order of their numbers."""
    layout, frames = here.layout.on_host, inputs["feature_lengths"].tolist()
    values = torch.cat([values.cpu() for values in here.values.values()])
    seconds = torch.cat([places_of(model, part, layout, frames)[0] for part in here.parts.values()])
    value, token = values.max(0)
    fires = (value > 0).nonzero()[:, 0]
    start, end = seconds[token[fires]].unbind(1)
    numbers: list[int] = fires.tolist()
    return pd.DataFrame(
        {
            "feature": pd.array(numbers, dtype="Int64"),
            "value": value[fires].double().numpy(),
            "start_s": start.numpy(),
            "end_s": end.numpy(),
            "estimate": float("nan"),
            "effect": float("nan"),
        }
    )

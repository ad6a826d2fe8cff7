"""What steering along a direction does, dose by dose: to its target, and to everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from palscope._directions.direction import Direction, Steer
from palscope._hooks import HookedAudioModel
from palscope.interventions import Address, Patch
from palscope.interventions._address import SITES
from palscope.interventions._cells import with_encoded
from palscope.measures._choices import choices_and_next_token


def steered_choices(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[Sequence[str]],
    direction: Direction,
    where: Address,
    doses: Sequence[float],
    *,
    target: str,
) -> list[pd.DataFrame]:
    """How prompts are answered with a direction added at each dose.

    Args:
        model: on the route of the direction's model.
        inputs: of one prompt or several, which share passes.
        choices: each prompt's answers to rank.
        direction: what is added.
        where: its site, with tokens and one layer.
        doses: what it is multiplied by; 0 is the run without.
        target: the answer that it is meant to lead to.

    Returns:
        A table a prompt, one row a dose: `dose`; `best`, the likeliest choice; `log_odds`, of the
        target against all other choices (nats; NaN where it is no choice); `kl` from the run
        without, of the next token behind the prompt (nats).

    Raises:
        PalscopeError: the address cannot be resolved, or the direction is of another site or model.
    """
    before = SITES[where.site].tokens == "sound" or where.site == "connector_output"
    given = dict(inputs) if before else with_encoded(model, inputs)
    without = choices_and_next_token(model, given, choices)
    plain = without[1]
    rows: list[list[dict[str, Any]]] = [[] for _ in choices]
    for dose in doses:
        steer = Patch(where, Steer(direction, dose))
        found, after = choices_and_next_token(model, given, choices, [steer]) if dose else without
        kl: list[float] = (plain.exp() * (plain - after)).sum(-1).clamp(min=0).tolist()
        for row, mine, ranked, away in zip(rows, choices, found, kl, strict=True):
            best = mine[int(ranked.argmax())]
            row.append(
                {
                    "dose": dose,
                    "best": best,
                    "log_odds": _log_odds(mine, ranked, target),
                    "kl": away,
                }
            )
    return [pd.DataFrame(row) for row in rows]


def _log_odds(choices: Sequence[str], logprobs: Any, target: str) -> float:
    if target not in choices or len(choices) < 2:
        return float("nan")
    at = list(choices).index(target)
    others = np.delete(np.asarray(logprobs, dtype=float), at)
    return float(logprobs[at] - np.logaddexp.reduce(others))

"""How much of what decides an answer passes by dictionaries: in their errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._models.turns import SPLICED
from palscope.errors import PalscopeError
from palscope.interventions import Address
from palscope.measures import Answers, attribution_patching
from palscope.measures._metrics import Metric
from palscope.measures._patching import Direction

_TOKEN = ["layer", "stream", "clip", "token"]


def error_share(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    *,
    answers: Answers,
    direction: Direction = "denoising",
    metric: Metric = "logit_diff",
) -> pd.DataFrame:
    """Of each dictionary that is spliced in, what features and what errors carry of the answer.

    To first order, as `attribution_patching`: the gradient of the metric, times how far apart the
    two runs are there, summed over the tokens that the dictionary touches (before the decoder, of
    the first clip). At one site the three parts add up to what patching the site would do, to first
    order; several layers' effects do not add up, for each holds what the layers above make of it.

    Args:
        model: within `spliced(model, …)`, with the error term.
        clean: inputs of the clean prompt, one row.
        corrupt: of the corrupt one: the same text, and a clip of the same length.
        answers: the deciding tokens.
        direction: as in `attribution_patching`.
        metric: likewise.

    Returns:
        One row a dictionary: `hook_point`; `features`, `errors` and `linear` (of a transcoder's
        skip), in nats; `error_share`, the size of `errors` over the sizes of the three.

    Raises:
        PalscopeError: no dictionary is spliced in, or without its error term; or as
            `attribution_patching`.
    """
    places: list[Any] = [each for block in model.turns.values(SPLICED) for each in block]
    if not places:
        raise PalscopeError(
            "no dictionary is spliced in: ask within palscope.features.spliced(model, …)."
        )
    asked: list[Address] = []
    for each in places:
        own: Address = each.writes
        asked += [Address(site, at=each.hook_point) for site in ("feature", "feature_error")]
        asked.append(own)
    table: Any = attribution_patching(
        model,
        clean,
        corrupt,
        asked,
        answers=answers,
        direction=direction,
        metric=metric,
    )
    rows: list[dict[str, Any]] = []
    for number, each in enumerate(places):
        of_features, of_errors, whole = (
            table[table["path"] == 3 * number + part] for part in range(3)
        )
        touched = whole.merge(of_errors[_TOKEN], on=_TOKEN)
        features, errors = (float(part["attribution"].sum()) for part in (of_features, of_errors))
        linear = float(touched["attribution"].sum()) - features - errors
        sizes = abs(features) + abs(errors) + abs(linear)
        rows.append(
            {
                "hook_point": each.hook_point,
                "features": features,
                "errors": errors,
                "linear": linear,
                "error_share": abs(errors) / sizes if sizes else float("nan"),
            }
        )
    return pd.DataFrame(rows)

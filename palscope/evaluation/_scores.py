"""From predictions to scores: accuracy by domain and label, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from palscope._statistics import wilson
from palscope._statistics.scores import score_of
from palscope.evaluation._items import clip_of
from palscope.evaluation._predictions import Prediction


def summarise(predictions: Sequence[Prediction], *, swapped: bool = False) -> dict[str, Any]:
    """Scores over all predictions that have an answer, then `by_domain` and in each `by_label`.

    All are fractions of one. `accuracy` counts the likeliest choice against the item's answer, with
    its 95 % `interval` over clips (None where few clips have several questions each); `exact_match`
    the greedy text; `off_list` greedy texts that are no choice at all. With `swapped` there is also
    `follows_audio`, the likeliest choice against the label of the audio that was heard. Without any
    answer they are None.
    """
    answered = [each for each in predictions if "error" not in each]
    domains = list(dict.fromkeys(each["domain"] for each in answered))
    return {
        **_score(answered, swapped),
        "by_domain": {
            domain: _domain([each for each in answered if each["domain"] == domain], swapped)
            for domain in domains
        },
    }


def summarise_composed(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Scores of composed clips by kind of question.

    Beside what `summarise` gives: `chance`, the mean of one over the number of choices, and
    `present`, the share of likeliest choices that sound anywhere in the clip. A model that hears
    well and orders badly has a high `present` and a low `accuracy`.
    """
    kinds = list(dict.fromkeys(each["domain"] for each in predictions))
    table: dict[str, Any] = {}
    for kind in kinds:
        rows = [each for each in predictions if each["domain"] == kind and "error" not in each]
        table[kind] = {
            **_score(rows, swapped=False),
            "chance": _share(rows, lambda each: 1 / len(each["logprobs"])),
        }
        if "count" not in kind:
            table[kind]["present"] = _share(rows, lambda each: each["best"] in each["heard"])
    return table


def _domain(predictions: Sequence[Prediction], swapped: bool) -> dict[str, Any]:
    labels = sorted({each["answer"] for each in predictions})
    return {
        **_score(predictions, swapped),
        "labels": list(predictions[0]["logprobs"]),
        "by_label": {
            label: _score([each for each in predictions if each["answer"] == label], swapped)
            for label in labels
        },
    }


def _score(predictions: Sequence[Prediction], swapped: bool) -> dict[str, Any]:
    scores: dict[str, Any] = {
        "accuracy": _share(predictions, lambda each: each["best"] == each["answer"]),
        "n": len(predictions),
        "interval": _interval(predictions),
        "exact_match": _share(predictions, lambda each: each["greedy"] == each["answer"]),
        "off_list": _share(predictions, lambda each: each["greedy"] not in each["logprobs"]),
    }
    if swapped:
        scores["follows_audio"] = _share(predictions, lambda each: each["best"] == each["heard"][0])
    return scores


def _interval(predictions: Sequence[Prediction]) -> list[float] | None:
    if not predictions:
        return list(wilson(0, 0))
    rows = [(clip_of(p["key"]), float(p["best"] == p["answer"]), 1.0) for p in predictions]
    interval = score_of(pd.DataFrame(rows, columns=["clip", "got", "of"])).interval
    return list(interval) if interval.known else None


def _share(predictions: Sequence[Prediction], value: Callable[[Prediction], float]) -> float | None:
    return sum(map(value, predictions)) / len(predictions) if predictions else None

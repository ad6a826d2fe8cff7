"""How often the ranked answer is right, as tables: one row a question, then one a domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd

from palscope._statistics import score_of
from palscope.evaluation._items import EvaluationItem, clip_of
from palscope.evaluation._ranking import Answerer, ChoiceQuestion, rankings


def ranked_answers(
    answerer: Answerer,
    items: Sequence[EvaluationItem],
    asked: Sequence[ChoiceQuestion],
    *,
    batch_size: int = 8,
) -> pd.DataFrame:
    """Rank each item's choices.

    Args:
        answerer: the model, on the route that it should take.
        items: the questions and their truth.
        asked: the same with their audio (`EvaluationItem.asked`), loaded once for several models.
        batch_size: questions asked at once.

    Returns:
        One row an item: `clip` (of its key), `domain`, `answer` (the truth), `best` (the likeliest
        choice), `correct`, `margin` (log-probability of the answer less that of the likeliest other
        choice, nats; NaN without another), `chance` (one over the number of choices).
    """
    rows: list[dict[str, Any]] = []
    for start in range(0, len(items), batch_size):
        stop = start + batch_size
        for item, ranking in zip(
            items[start:stop], rankings(answerer, asked[start:stop]), strict=True
        ):
            logprobs = dict(zip(ranking.choices, ranking.logprobs, strict=True))
            answer = logprobs.pop(item.answer)
            rows.append(
                {
                    "clip": clip_of(item.key),
                    "domain": item.domain,
                    "answer": item.answer,
                    "best": ranking.best,
                    "correct": ranking.best == item.answer,
                    "margin": answer - max(logprobs.values(), default=float("nan")),
                    "chance": 1 / len(ranking.choices),
                }
            )
    return pd.DataFrame(rows)


def accuracy(answers: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Accuracy by domain, of one or several models or routes.

    Args:
        answers: a row a question: `clip, domain, correct, chance, margin`, as of `ranked_answers`
            or of `palscope.measures._choices.best_choices`.
        by: columns to keep apart beside the domain.

    Returns:
        One row a (by…, domain): `n`, `correct` (how many), `accuracy` (share of one) with its 95 %
        interval over clips `low`, `high` (NaN where few clips have several questions each),
        `chance` (mean of one over the number of choices) and `margin` (mean, nats).
    """
    rows: list[dict[str, Any]] = []
    names = [*by, "domain"]
    for key, group in cast(Any, answers).groupby(names, sort=False, observed=True):
        n, correct = len(group), int(group["correct"].sum())
        points = {"clip": group["clip"], "got": group["correct"].astype(float)}
        interval = score_of(pd.DataFrame(points).assign(of=1.0)).interval
        rows.append(
            {
                **dict(zip(names, key, strict=True)),
                "n": n,
                "correct": correct,
                "accuracy": correct / n,
                "low": interval.low,
                "high": interval.high,
                "chance": float(group["chance"].mean()),
                "margin": float(group["margin"].mean()),
            }
        )
    return pd.DataFrame(rows)

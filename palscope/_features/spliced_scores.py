"""What of the model's answers is left when it hears through a dictionary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from palscope._features.dictionary import Dictionary
from palscope._features.splice import spliced
from palscope._hooks import HookedAudioModel
from palscope._models.scoring import batched_choice_logprobs
from palscope._statistics import interval_columns, ratio, ratio_interval, score_of
from palscope.errors import PalscopeError

RUNS = ("model", "with error", "reconstruction", "mean")
"""The model as it is; with the dictionary and its error, which must be the same; with what the
dictionary says alone; with the mean of the training rows in the place of every row that it says."""


@dataclass(frozen=True)
class AskedAbout:
    """A question about a clip, with its truth.

    Attributes:
        clip: names it.
        group: its recording or speaker; "" where it is alone.
        domain: of its label.
        sound: what the processor takes.
        question: that is asked.
        choices: answers that are ranked.
        answer: the right one of them.
    """

    clip: str
    group: str
    domain: str
    sound: Any
    question: str
    choices: Sequence[str]
    answer: str


def mean_in_place(dictionary: Dictionary) -> Dictionary:
    """One at the same place that gives the mean of the rows that `dictionary` was trained on.

    Raises `PalscopeError` where the dictionary does not know it.
    """
    mean = dictionary.about.get("mean" if dictionary.centred else "mean_out")
    if mean is None:
        raise PalscopeError(
            "this dictionary does not say the mean of the rows that it was trained on, so there is "
            f"no mean ablation: set about['{'mean' if dictionary.centred else 'mean_out'}']."
        )
    d_out = None if dictionary.centred else dictionary.d_out
    made = Dictionary(dictionary.d_in, 1, kind="topk", k=1, d_out=d_out)
    made.W_dec.data.zero_()
    made.b_dec.data.copy_(torch.tensor(mean))
    made.about = dictionary.about
    return made.to(dictionary.W_dec.device).eval()


def spliced_answers(
    model: HookedAudioModel,
    dictionary: Dictionary,
    asked: Sequence[AskedAbout],
    *,
    batch_size: int = 8,
) -> pd.DataFrame:
    """Each question's answer in each of `RUNS`.

    Args:
        model: that the dictionary belongs to.
        dictionary: with the mean of its training rows.
        asked: questions about clips that it was not trained on.
        batch_size: questions asked at once.

    Returns:
        One row a question and run: `run, clip, group, domain, correct` (the likeliest choice is the
        answer) and `loss`, the negative log-probability of the whole answer in nats.

    Raises:
        PalscopeError: as `spliced`; or there is no question, or the mean is not known.
    """
    if not asked:
        raise PalscopeError("there are no questions to ask.")
    rows: list[dict[str, Any]] = []
    for run, within in _runs(model, dictionary):
        with within:
            found = batched_choice_logprobs(
                model.model,
                model.processor,
                [([each.sound], each.question, each.choices) for each in asked],
                batch_size,
            )
        for each, logprobs in zip(asked, found, strict=True):
            right = list(each.choices).index(each.answer)
            rows.append(
                {
                    "run": run,
                    "clip": each.clip,
                    "group": each.group,
                    "domain": each.domain,
                    "correct": int(logprobs.argmax()) == right,
                    "loss": -float(logprobs[right]),
                }
            )
    return pd.DataFrame(rows)


def _runs(
    model: HookedAudioModel, dictionary: Dictionary
) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    mean = mean_in_place(dictionary)
    yield RUNS[0], nullcontext()
    yield RUNS[1], spliced(model, dictionary)
    yield RUNS[2], spliced(model, dictionary, error=False)
    yield RUNS[3], spliced(model, mean, error=False)


def spliced_scores(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, loss and what is recovered of it, by domain and over all.

    Args:
        answers: of `spliced_answers`.

    Returns:
        One row a domain ("all" last) and run: `domain, run, n`; `accuracy` (of one), `loss` (mean
        over questions, nats) and `recovered`, (loss by the mean − loss) / (loss by the mean − the
        model's own): 1 of the model, 0 of the mean, NaN where the mean does no harm. Each with its
        95 % interval over recordings, `NAME_low`, `NAME_high`, or else a recording's values.
    """
    table: Any = answers
    table = table.assign(clip=table["group"].where(table["group"] != "", table["clip"]))
    domains = [(name, mine) for name, mine in table.groupby("domain", sort=False)]
    rows: list[dict[str, Any]] = []
    for domain, mine in [*domains, ("all", table)]:
        if domain == "all" and len(domains) == 1:
            continue
        losses: Any = mine.pivot_table("loss", "clip", "run", "sum")[list(RUNS)]
        harm = losses["mean"] - losses["model"]
        for run in RUNS:
            here = mine[mine["run"] == run]
            points: Any = here[["clip"]].assign(of=1.0)
            right = score_of(points.assign(got=here["correct"].astype(float)))
            loss = score_of(points.assign(got=here["loss"]))
            saved = losses["mean"] - losses[run]
            known = ratio_interval(saved, harm)
            rows.append(
                {
                    "domain": domain,
                    "run": run,
                    "n": len(here),
                    "accuracy": right.score,
                    **interval_columns(right.interval, right.by_clip, "accuracy"),
                    "loss": loss.score,
                    **interval_columns(loss.interval, loss.by_clip, "loss"),
                    "recovered": ratio(saved, harm),
                    **interval_columns(known, saved / harm, "recovered"),
                }
            )
    return pd.DataFrame(rows)

"""What an intervention did to an answer: metrics of the logits at the token that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from palscope._models.processor import AudioProcessor
from palscope._models.scoring import answer_ids, continued
from palscope.errors import PromptError

Metric = Literal["logit_diff", "logprob"]

NAN = float("nan")
METRICS = ("logit_diff", "logprob", "kl", "rank")


@dataclass(frozen=True)
class Answers:
    """Two answers up to the token in which they first differ.

    Attributes:
        prefix: ids that both begin with; they are appended to the prompt.
        clean: id in which the clean answer goes on.
        corrupt: that of the corrupt answer; None where there is none.
    """

    prefix: tuple[int, ...]
    clean: int
    corrupt: int | None

    @classmethod
    def of(cls, processor: AudioProcessor, clean: str, corrupt: str | None) -> Answers:
        """The deciding token of two answers, their ends included.

        Raises:
            PromptError: the answers are the same.
        """
        first = answer_ids(processor, clean)
        if corrupt is None:
            return cls((), first[0], None)
        second = answer_ids(processor, corrupt)
        for place, (a, b) in enumerate(zip(first, second, strict=False)):
            if a != b:
                return cls(tuple(first[:place]), a, b)
        raise PromptError(f"the answers {clean!r} and {corrupt!r} are the same tokens.")

    @property
    def metric(self) -> Metric:
        """What can be told of them: of one answer alone, its log-probability."""
        return "logprob" if self.corrupt is None else "logit_diff"

    def behind(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """`inputs` of one prompt with the common beginning of the answers behind it."""
        return continued(inputs, self.prefix) if self.prefix else dict(inputs)


def answer_metrics(
    logits: Float[Tensor, "cells vocabulary"],
    answers: Answers,
    source: Float[Tensor, "vocabulary"],
) -> pd.DataFrame:
    """`logit_diff, logprob, kl, rank` of each row of logits.

    `logit_diff` is the logit of the clean answer less that of the corrupt one (NaN where there is
    none) and `logprob` the clean answer's log-probability, both in nats; `kl` is the divergence of
    the row from the distribution `source`, in nats; `rank` the place of the clean answer in the
    vocabulary, 0 for the most probable.
    """
    logits, source = logits.double(), source.double()
    logp, source_logp = logits.log_softmax(-1), source.log_softmax(-1)
    clean = logits[:, answers.clean]
    difference = clean - logits[:, answers.corrupt] if answers.corrupt is not None else clean * NAN
    return pd.DataFrame(
        {
            "logit_diff": difference.numpy(),
            "logprob": logp[:, answers.clean].numpy(),
            "kl": (source_logp.exp() * (source_logp - logp)).sum(-1).numpy(),
            "rank": (logits > clean[:, None]).sum(-1).numpy(),
        }
    )

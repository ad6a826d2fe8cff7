"""Metrics of an answer, against what the logits say by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._models.scoring import answer_ids
from palscope.errors import PromptError
from palscope.measures._metrics import METRICS, Answers, answer_metrics
from tests.interventions.conftest import prompt


def test_metrics_by_hand() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.4, 0.4]])
    logits = probabilities.log() + torch.tensor([[5.0], [-2.0], [0.0]])  # a shift means nothing
    table = answer_metrics(logits, Answers((), 0, 1), logits[0])
    assert tuple(table.columns) == METRICS
    np.testing.assert_allclose(table["logit_diff"], np.log([3.5, 1 / 6, 0.5]), rtol=1e-5)
    np.testing.assert_allclose(table["logprob"], np.log([0.7, 0.1, 0.2]), rtol=1e-5)
    p = probabilities.numpy()
    kl = [float((p[0] * np.log(p[0] / row)).sum()) for row in p]
    np.testing.assert_allclose(table["kl"], kl, atol=1e-6)
    assert kl[1] > 0.1  # from the source to the row, not the reverse
    assert kl[1] != pytest.approx(float((p[1] * np.log(p[1] / p[0])).sum()), abs=1e-2)
    assert table["rank"].tolist() == [0, 2, 2]


def test_without_a_corrupt_answer_there_is_no_difference() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    table = answer_metrics(logits, Answers((), 3, None), logits[0])
    assert table["logit_diff"].isna().all()
    assert table[["logprob", "kl", "rank"]].notna().to_numpy().all()


def test_answers_part_at_their_first_different_token(pal: Any) -> None:
    processor = pal.processor
    one, other = "sea waves", "sea lions"
    first, second = (answer_ids(processor, answer) for answer in (one, other))
    answers = Answers.of(processor, one, other)
    assert len(answers.prefix) >= 1 and first[: len(answers.prefix)] == list(answers.prefix)
    assert (answers.clean, answers.corrupt) == (
        first[len(answers.prefix)],
        second[len(answers.prefix)],
    )
    assert answers.clean != answers.corrupt
    assert Answers.of(processor, one, None) == Answers((), first[0], None)


def test_an_answer_that_begins_another_ends_where_the_other_goes_on(pal: Any) -> None:
    answers = Answers.of(pal.processor, "sea", "sea waves")
    assert answers.clean == pal.processor.tokenizer.eos_token_id
    with pytest.raises(PromptError, match="the same tokens"):
        Answers.of(pal.processor, "dog", "dog")


def test_the_common_beginning_stands_behind_the_prompt(pal: Any) -> None:
    inputs = prompt(pal)
    behind = Answers((7, 8), 1, 2).behind(inputs)
    assert behind["input_ids"][0, -2:].tolist() == [7, 8]
    assert behind["input_ids"].shape == behind["attention_mask"].shape
    assert torch.equal(behind["input_ids"][:, :-2], inputs["input_ids"])
    plain = Answers((), 1, 2).behind(inputs)
    assert torch.equal(plain["input_ids"], inputs["input_ids"])

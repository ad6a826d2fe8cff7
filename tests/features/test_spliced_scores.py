"""Answers through a dictionary: against interventions on its site, and tables counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope._features.spliced_scores import (
    RUNS,
    AskedAbout,
    mean_in_place,
    spliced_answers,
    spliced_scores,
)
from palscope.errors import PalscopeError
from palscope.interventions import Address, Mean, Patch
from palscope.measures import choice_logprobs
from tests.features.spliced import random_at

HOOK, SITE = "audio_blocks.0.hook_out", Address("encoder_block", layers=(0,))
CHOICES = ("one", "two", "three four")


def test_each_run_is_what_an_intervention_makes_of_it(model: Any, clips: Any) -> None:
    """Two questions of different lengths at once; the mean is that of the second clip's rows."""
    asked = [
        AskedAbout(clip.name, "", clip.domain, clip.sound, clip.question, CHOICES, "two")
        for clip in clips[:2]
    ]
    inputs = [model.inputs(each.question, each.sound) for each in asked]
    _, cache = model.run_with_cache(inputs[1], names_filter=[HOOK])
    dictionary = random_at(HOOK, 16, mean=cache[HOOK][0].mean(0).tolist())
    found: Any = spliced_answers(model, dictionary, asked)
    assert found["run"].unique().tolist() == list(RUNS)
    losses = found.pivot(index="clip", columns="run", values="loss")
    for each, given in zip(asked, inputs, strict=True):
        mine = losses.loc[each.clip]
        plain = choice_logprobs(model, given, CHOICES)
        patched = choice_logprobs(model, given, CHOICES, [Patch(SITE, Mean([inputs[1]]))])
        assert mine["model"] == pytest.approx(-plain[1], abs=1e-4)
        assert mine["with error"] == pytest.approx(mine["model"], abs=1e-4)
        assert mine["mean"] == pytest.approx(-patched[1], abs=1e-4)
        assert abs(mine["reconstruction"] - mine["model"]) > 1e-3
        right = found[(found["run"] == "mean") & (found["clip"] == each.clip)]["correct"].item()
        assert right == (patched.argmax() == 1)
    del dictionary.about["mean"]
    with pytest.raises(PalscopeError, match=r"set about\['mean'\]"):
        mean_in_place(dictionary)
    with pytest.raises(PalscopeError, match="no questions"):
        spliced_answers(model, dictionary, [])


def test_scores_are_counted_over_recordings() -> None:
    """Forty questions about twenty recordings of one domain, twelve clips alone of another."""
    rng = np.random.default_rng(0)
    about = [("a", f"clip {n}", f"recording {n // 2}") for n in range(40)]
    about += [("b", f"alone {n}", "") for n in range(12)]
    rows: list[dict[str, Any]] = []
    for domain, clip, group in about:
        own, mean = rng.uniform(0, 1), rng.uniform(2, 4)
        for run, loss in zip(RUNS, (own, own, 0.75 * own + 0.25 * mean, mean), strict=True):
            row = {"run": run, "clip": clip, "group": group, "domain": domain}
            rows.append(row | {"correct": loss < 1, "loss": loss})
    answers = pd.DataFrame(rows)
    found: Any = spliced_scores(answers)
    assert found["domain"].tolist() == [name for name in ("a", "b", "all") for _ in RUNS]
    for row in found.to_dict("records"):
        mine = answers[(answers["run"] == row["run"])]
        mine = mine if row["domain"] == "all" else mine[mine["domain"] == row["domain"]]
        assert row["n"] == len(mine)
        assert row["accuracy"] == pytest.approx(mine["correct"].mean())
        assert row["loss"] == pytest.approx(mine["loss"].mean())
    recovered = found.set_index(["domain", "run"])["recovered"]
    for domain in ("a", "b", "all"):
        assert recovered[domain].tolist() == pytest.approx([1.0, 1.0, 0.75, 0.0])
    known = found["loss_low"].notna()
    assert known.tolist() == [True] * 4 + [False] * 4 + [True] * 4  # twelve recordings are few
    assert (found["loss_low"][known] < found["loss"][known]).all()
    few = found[found["domain"] == "b"]["loss_values"].iloc[0].numbers
    assert len(few) == 12

"""Systems side by side: scores over seeds, paired with the baseline's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.evaluation._experiment import OWN
from palscope.evaluation._reproduce import ALL, summary


def marks_of(right: dict[str, Any]) -> pd.DataFrame:
    """Marks of variants: `right[name][seed][domain]` is a list of right or wrong."""
    rows = [
        {
            "variant": name,
            "system": name,
            "under": OWN,
            "route": "lal",
            "seed": seed,
            "set": domain,
            "clip": f"{domain}{number}",
            "got": float(got),
            "of": 1.0,
        }
        for name, seeds in right.items()
        for seed, domains in enumerate(seeds)
        for domain, answers in domains.items()
        for number, got in enumerate(answers)
    ]
    return pd.DataFrame(rows)


def costs_for(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"placement": names, "timing": "x", "peak_ratio": range(1, len(names) + 1)})


def test_scores_are_over_all_seeds_and_differences_are_paired() -> None:
    table: Any = summary(
        marks_of(
            {
                "base": [{"sound": [1, 1, 0, 0]}, {"sound": [1, 0, 0, 0]}],
                "other": [{"sound": [1, 1, 1, 0]}, {"sound": [1, 1, 1, 1]}],
            }
        ),
        costs_for("base", "other"),
        "base",
    ).set_index("variant")
    assert table["score"].to_dict() == {"base": 3 / 8, "other": 7 / 8}
    assert table.loc["base", "seed_values"].numbers == (0.5, 0.25)
    assert (table["seeds"] == 2).all() and (table["n"] == 4).all()  # clips, not clips × seeds
    assert table.loc["other", "difference"] == 0.5
    # four clips: no interval, but what each gains
    assert np.isnan(table.loc["other", ["difference_low", "low"]].to_list()).all()
    assert table.loc["other", "difference_values"].numbers == (0.0, 0.5, 1.0, 0.5)
    assert table.loc["base", "difference_values"].numbers == (0.0,) * 4
    assert table["peak_ratio"].to_dict() == {"base": 1, "other": 2}


def test_an_interval_is_over_clips_however_many_seeds() -> None:
    # Seeds that agree say nothing new about other clips.
    answers = [1, 0] * 10
    once, often = (
        summary(marks_of({"base": [{"sound": answers}] * seeds}), costs_for("base"), "base").iloc[0]
        for seeds in (1, 5)
    )
    assert np.allclose([once["low"], once["high"]], [often["low"], often["high"]], atol=0.02)
    assert often["low"] <= once["low"] and often["high"] >= once["high"]
    assert 0.2 < once["low"] < 0.4


def test_all_sets_together_weigh_questions_alike() -> None:
    domains = {"sound": [1] * 6, "music": [0] * 2}
    table: Any = summary(marks_of({"base": [domains]}), costs_for("base"), "base")
    assert dict(zip(table["set"], table["score"], strict=True)) == {
        "sound": 1.0,
        "music": 0.0,
        ALL: pytest.approx(0.75),
    }


def test_one_set_alone_is_not_listed_twice() -> None:
    table = summary(marks_of({"base": [{"sound": [1, 0]}]}), costs_for("base"), "base")
    assert list(table["set"]) == ["sound"]


def test_a_seed_that_the_baseline_lacks_is_left_out_of_the_difference() -> None:
    marks = marks_of({"base": [{"sound": [1, 0]}], "other": [{"sound": [0, 0]}] * 2})
    marks = marks[~((marks["variant"] == "other") & (marks["seed"] == 0))]
    with pytest.raises(ValueError, match="no clip and seed in common"):
        summary(marks, costs_for("base", "other"), "base")

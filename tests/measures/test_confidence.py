"""The confidence that is asked for reaches every interval: less of it is a narrower one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.measures._knockout import knockout_effects
from palscope.measures._patching import answers_moved, patching_effects

CLIPS = 24


def values() -> Any:
    return np.random.default_rng(0).normal(1.0, 0.5, CLIPS)


def knockouts() -> Any:
    made = {"run": "cut", "clip": range(CLIPS), "layer": 0, "logprob_change": values()}
    return pd.DataFrame(made)


def pairs() -> Any:
    runs = {"target": -1.0, "source": 1.0, "patch": values() - 0.9}
    made = [
        pd.DataFrame({"pair": range(CLIPS), "run": run, "layer": 0, "logit_diff": value})
        for run, value in runs.items()
    ]
    return pd.concat(made).assign(direction="denoising")


MEASURES: dict[str, Callable[..., Any]] = {
    "knockout_effects": lambda **told: knockout_effects(knockouts(), ["layer"], **told),
    "patching_effects": lambda **told: patching_effects(pairs(), ["layer"], **told),
    "answers_moved": lambda **told: answers_moved(pairs(), ["layer"], **told),
}


@pytest.mark.parametrize("name", MEASURES)
def test_less_confidence_is_a_narrower_interval(name: str) -> None:
    (half,), (most,), (plain,) = (
        MEASURES[name](**told).to_dict("records")
        for told in ({"confidence": 0.5}, {"confidence": 0.95}, {})
    )
    assert plain["low"] == most["low"] < half["low"] < half["high"] < most["high"]
    assert plain["high"] == most["high"]

"""What single features do to an answer: against interventions by hand, and attribution patching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._features.effects import feature_effects
from palscope.errors import PalscopeError
from palscope.features import spliced
from palscope.interventions import (
    Address,
    Patch,
    Resample,
    Scale,
    Sound,
    Text,
    Zero,
    capture,
    intervene,
)
from palscope.measures import Answers, attribution_patching
from tests.features.spliced import random_at
from tests.hooks.conftest import noise

ANSWERS = Answers((7,), 11, 12)
SITES: dict[str, Any] = {
    "audio_blocks.0.hook_out": (Sound(0.2, 0.5), {}),
    "audio_projector_frames_0.hook_in": (Sound(0.2, 0.5), {}),
    "blocks.2.hook_resid_post": (Sound(0.2, 0.5), {}),
    "blocks.1.hook_resid_post": (Text(), {"streams": ["text"]}),
}


def width_of(model: Any, hook_point: str) -> int:
    _, cache = model.run_with_cache(model.inputs("what?", noise(0.3)), names_filter=[hook_point])
    return cache[hook_point].flatten(2).shape[-1]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ["zero", "times", "other"])
def test_effects_are_those_of_changes_by_hand(model: Any, site: str, name: str) -> None:
    tokens, about = SITES[site]
    inputs, other = (model.inputs("what?", noise(1.0, seed)) for seed in (0, 1))
    change = {"zero": Zero(), "times": Scale(-2.0), "other": Resample(other)}[name]
    asked = ANSWERS.behind(inputs)
    by_hand = Resample(ANSWERS.behind(other)) if name == "other" else change

    def lead(*patches: Patch) -> float:
        with torch.no_grad(), intervene(model, asked, patches):
            logits = model(asked)[0, -1].double()
        return float(logits[11] - logits[12])

    with spliced(model, random_at(site, width_of(model, site), **about)):
        table = feature_effects(model, inputs, change, answers=ANSWERS, tokens=tokens, checked=3)
        fires = capture(model, asked, Address("feature", tokens))
        values = torch.cat(list(fires.values.values()))
        plain = lead()
        told = table.dropna(subset=["effect"])
        assert len(told) == 4 and told["feature"].isna().sum() == 1
        for row in told.itertuples():
            error = row.feature is told["feature"].dtype.na_value
            place = (
                Address("feature_error", tokens)
                if error
                else Address("feature", tokens, features=(row.feature,))
            )
            moved = lead(Patch(place, by_hand)) - plain
            assert row.effect == pytest.approx(moved, abs=2e-5)
    assert told["effect"].abs().max() > 1e-3
    assert (told["effect"].abs().diff().dropna() <= 0).all()
    features = table["feature"].dropna().astype(int)
    assert sorted(features) == (values.amax(0) > 0).nonzero()[:, 0].tolist()
    peaks = table.dropna(subset=["feature"])["value"].to_numpy()
    np.testing.assert_allclose(peaks, values.amax(0)[features.tolist()], rtol=1e-6)
    rest = table[table["effect"].isna()]["estimate"].abs()
    assert (rest.diff().dropna() <= 0).all()
    assert len(rest) and rest.max() <= told.dropna(subset=["feature"])["estimate"].abs().min()


@pytest.mark.parametrize("site", SITES)
def test_estimates_are_attribution_patching_of_each(model: Any, site: str) -> None:
    tokens, about = SITES[site]
    clean, corrupt = (model.inputs("what?", noise(1.0, seed)) for seed in (0, 1))
    with spliced(model, random_at(site, width_of(model, site), **about)):
        table = feature_effects(
            model, clean, Resample(corrupt), answers=ANSWERS, tokens=tokens, checked=0
        )
        numbers = table["feature"].dropna().astype(int).tolist()
        places = [Address("feature", tokens, features=(number,)) for number in numbers]
        wanted: Any = attribution_patching(
            model,
            clean,
            corrupt,
            [*places, Address("feature_error", tokens)],
            answers=ANSWERS,
            direction="noising",
        )
    sums = wanted.groupby("path")["attribution"].sum()
    found = table.dropna(subset=["feature"])["estimate"]
    np.testing.assert_allclose(found, sums.iloc[:-1], atol=1e-5)
    (error,) = table[table["feature"].isna()]["estimate"]
    assert error == pytest.approx(sums.iloc[-1], abs=1e-5)
    assert sums.abs().max() > 1e-3 and len(numbers) > 4


def test_a_value_stands_at_the_second_of_its_token(model: Any) -> None:
    """20 ms a token of the encoder, the first of which overlaps the stretch's beginning."""
    hook = "audio_blocks.0.hook_out"
    inputs = model.inputs("what?", noise(1.0))
    with spliced(model, random_at(hook, 16)):
        table = feature_effects(
            model, inputs, Zero(), answers=ANSWERS, tokens=Sound(0.21, 0.5), checked=0
        )
        _, cache = model.run_with_cache(inputs)
    acts = cache[f"{hook}.hook_sae_acts_post"][0, 10:25]
    for row in table.dropna(subset=["feature"]).itertuples():
        at = int(acts[:, row.feature].argmax())
        assert row.start_s == pytest.approx(0.2 + 0.02 * at)
        assert row.end_s == pytest.approx(0.22 + 0.02 * at)


def test_of_one_answer_it_is_the_log_probability(model: Any) -> None:
    inputs = model.inputs("what?", noise(1.0))
    alone = Answers((), 11, None)
    with spliced(model, random_at("audio_blocks.0.hook_out", 16)):
        table = feature_effects(model, inputs, Zero(), answers=alone, checked=1)
        top = int(table["feature"].dropna().iloc[0])
        with torch.no_grad():
            before = model(inputs)[0, -1].log_softmax(-1)[11]
            with intervene(model, inputs, [Patch(Address("feature", features=(top,)), Zero())]):
                after = model(inputs)[0, -1].log_softmax(-1)[11]
    (effect,) = table[table["feature"] == top]["effect"]
    assert effect == pytest.approx(float(after - before), abs=2e-5)


def test_what_cannot_be_asked_is_said(model: Any) -> None:
    inputs = model.inputs("what?", noise(1.0))
    with pytest.raises(PalscopeError, match="no dictionary is spliced in"):
        feature_effects(model, inputs, Zero(), answers=ANSWERS)
    two = {name: torch.cat([value, value]) for name, value in inputs.items()}
    with pytest.raises(PalscopeError, match="give inputs of one prompt"):
        feature_effects(model, two, Zero(), answers=ANSWERS)
    with pytest.raises(PalscopeError, match="checked"):
        feature_effects(model, inputs, Zero(), answers=ANSWERS, checked=-1)

"""Fun-ASR-Nano: which samples a token is made of, its projector that attends, its longest clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import FunAsrNanoConfig

import palscope
from palscope._hooks import HookedAudioModel
from palscope._published.fun_asr_nano import FunAsrNano
from palscope.interventions import Address, Patch, Sound, Zero, capture, intervene
from tests.published.contract import RATE, noise
from tests.published.tiny import fun_asr_nano as tiny


@pytest.fixture(scope="module")
def hooked() -> HookedAudioModel:
    return palscope.load(tiny.model(), processor=tiny.processor())


def test_a_token_hears_the_samples_that_are_said(hooked: Any) -> None:
    family, extractor = hooked.model.family, hooked.processor.feature_extractor
    samples = noise(1.3)
    plain = family.extract(extractor, samples)
    for token in (3, 9):
        middle = family.grid.span(token)[0] + 0.0125
        for away in (-0.044, -0.041, 0.0, 0.041, 0.044):
            changes = abs(away) < 0.0425
            edited = samples.copy()
            edited[round((middle + away) * RATE) + np.arange(-8, 8)] = 0.5
            found = family.extract(extractor, edited).values[:, token]
            assert torch.equal(found, plain.values[:, token]) == (not changes)


@torch.no_grad()
def test_behind_the_tower_a_token_hears_of_all_others(hooked: HookedAudioModel) -> None:
    inputs = hooked.inputs("what?", noise(1.3))
    out = Address("connector_output")
    (plain,) = capture(hooked, inputs, out).values.values()
    with intervene(hooked, inputs, [Patch(Address("encoder_output", Sound(0.5, 0.6)), Zero())]):
        (edited,) = capture(hooked, inputs, out).values.values()
    assert bool(((edited - plain).norm(dim=-1) > 1e-4).all())


def test_the_longest_clip_is_that_which_has_positions() -> None:
    family = FunAsrNano(FunAsrNanoConfig())
    positions = family.config.audio_config.max_position_embeddings
    # The class counts from one.
    assert family.longest == pytest.approx((positions - 1) * family.seconds_per_frame)

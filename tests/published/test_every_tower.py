"""In every class, seconds of the tower are the seconds of the tokens that come of them."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

import palscope
from palscope._hooks import HookedAudioModel
from palscope.interventions import Address, Patch, Resample, Scale, Sound, capture, intervene
from tests.published.contract import CASES, WORDS, Case, noise

DROPS = "gemma3n"
"""Its tower drops all but each fourth token behind its layers; its own tests hold the rest."""
ATTENDS = "fun_asr_nano"
"""Its projector's layers attend, too; here they are kept from it. Its own test holds the rest."""
OUT = Address("connector_output")


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: Any) -> Case:
    return request.param


@pytest.fixture(scope="module")
def model(case: Case) -> HookedAudioModel:
    tiny: Any = importlib.import_module(f"tests.published.tiny.{case.name}")
    made = tiny.model()
    if case.name == ATTENDS:
        for layer in made.model.multi_modal_projector.layers:
            for weight in layer.self_attn.o_proj.parameters():
                torch.nn.init.zeros_(weight)
    return palscope.load(made, processor=tiny.processor())


def tokens_out(model: HookedAudioModel, inputs: Any, *patches: Patch) -> Tensor:
    """The clip's audio tokens, as they leave the projector."""
    with intervene(model, inputs, patches):
        (values,) = capture(model, inputs, OUT).values.values()
    return values


def moved(model: HookedAudioModel, inputs: Any, where: Address) -> set[int]:
    plain, edited = (tokens_out(model, inputs, *p) for p in ((), [Patch(where, Scale(-2.0))]))
    # Scaled tokens change by as much as they are; rounding elsewhere is a millionth of that.
    change = (edited - plain).norm(dim=-1) / plain.norm(dim=-1)
    return set((change > 1e-3).nonzero()[:, 0].tolist())


def test_above_its_last_layer_a_stretch_of_the_tower_is_a_stretch_of_tokens(
    model: HookedAudioModel, case: Case
) -> None:
    """Behind the last layer tokens are pooled and projected, and do not hear each other."""
    last = len(model.model.encoder.blocks) - 1
    # Whole tokens of every class, pooled or not; in the second window, too, where there is one.
    stretches = [(1.2, case.seconds[0])] + ([(31.2, case.long)] if case.long else [])
    for start, seconds in stretches:
        inputs = model.inputs(WORDS[0], noise(seconds))
        spans = model.layout(inputs).seconds[0]
        spans = spans[spans.isfinite().all(1)].double()
        inside = (spans[:, 0] < start + 1.2 - 1e-4) & (spans[:, 1] > start + 1e-4)
        wanted = set(inside.nonzero()[:, 0].tolist())
        where = Sound(start, start + 1.2)
        assert len(wanted) > 3
        assert moved(model, inputs, Address("encoder_output", where)) == wanted
        of_layer = moved(model, inputs, Address("encoder_block", where, layers=(last,)))
        assert of_layer == (wanted - {min(wanted)} if case.name == DROPS else wanted)


def test_all_that_enters_the_projector_makes_the_source_run(
    model: HookedAudioModel, case: Case
) -> None:
    target, source = (model.inputs(WORDS[0], noise(case.seconds[0], seed)) for seed in (0, 1))
    wanted = tokens_out(model, source)
    found = tokens_out(model, target, Patch(Address("encoder_output"), Resample(source)))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    heard = tokens_out(model, target, Patch(Address("mel"), Resample(source)))
    assert (heard - wanted).norm() < 0.5 * (tokens_out(model, target) - wanted).norm()

"""Published classes on one pretended device, and those whose decoders run their own way on two.

The CPU's numbers to the bit, as with palscope's own models.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import palscope
from palscope._hooks import HookedAudioModel
from palscope._models.scoring import prompt_batch
from palscope._published import published_family
from palscope.interventions import Address, Knockout, Patch, Scale, Sound, Text, Zero, intervene
from palscope.interventions._address import SiteName
from palscope.interventions._cells import run_cells, with_encoded
from palscope.measures import pathway_mass
from tests.devices.placed import CPU, ONE, TWO, put, same
from tests.published.contract import CASES, WORDS, noise
from tests.published.test_encoder_decoders import CASES as ENCODER_DECODERS

NAMES = [case.name for case in CASES]
THEIR_OWN_WAY = ["gemma3n", "phi4_multimodal", "qwen3_omni", "whisper"]
"""States beside the residual stream, adapters, experts, a second attention."""


def opened(name: str, where: str) -> HookedAudioModel:
    made: Any = importlib.import_module(f"tests.published.tiny.{name}")
    model = made.model()
    put(model, where, published_family(model.config).decoder_path)
    return palscope.load(model, processor=made.processor())


@torch.no_grad()
def work(model: HookedAudioModel) -> list[Any]:
    """Logits with an edit before the decoder, cells inside of it, two words, and masses."""
    processor = model.processor
    asked = WORDS[0] if processor.takes_questions else processor.any_question
    read: SiteName = "resid_pre" if processor.takes_questions else "audio_v"
    inputs = prompt_batch(processor, [([noise(0.9)], asked)], model.model.device)
    encoded = with_encoded(model, inputs)
    entering = Patch(Address("encoder_output", Sound(0.2, 0.6)), Zero())
    with intervene(model, inputs, [entering]):
        edited = model(inputs)
    cells = [
        [],
        [Patch(Address(read, Sound(0.2, 0.6), layers=(1,)), Scale(2.0))],
        [Knockout(Address("pattern", Sound(), queries=Text(-1), layers=(2,)))],
    ]
    found = [edited, run_cells(model, encoded, cells)]
    found.append(model.model.generate(**encoded, max_new_tokens=2, do_sample=False))
    return [each.cpu() for each in found] + [pathway_mass(model, encoded)]


@functools.cache
def expected(name: str) -> list[Any]:
    with sdpa_kernel(SDPBackend.MATH):
        return work(opened(name, CPU))


@pytest.mark.parametrize(
    ("name", "where"),
    [(name, ONE) for name in [*NAMES, *(case.name for case in ENCODER_DECODERS)]]
    + [(name, TWO) for name in THEIR_OWN_WAY],
)
def test_a_published_class(name: str, where: str) -> None:
    found = work(opened(name, where))
    assert len(found) == 4
    for one, other in zip(found, expected(name), strict=True):
        same(one, other)

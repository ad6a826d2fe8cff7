"""The trained models of the demo on real sound, against the second implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import palscope
from palscope._hooks import HookedAudioModel
from palscope.audio._bundled import bundled_scenes
from palscope.interventions import Address, Knockout, Patch, Sound, Zero, intervene
from tests.reference.compare import compare
from tests.reference.edits import Change, Cut, Edit, sound, text
from tests.reference.model import Reference

pytestmark = pytest.mark.slow

COUNTS = [1, 0, 2]
STRETCH = (0.43, 0.91)
CLOSE = {"atol": 1e-8, "rtol": 1e-8}
"""Double rounding (2e-16) through thirty layers of states up to some thousand."""


@pytest.fixture(scope="module", params=["plits", "lal", "pal"])
def both(request: Any) -> tuple[HookedAudioModel, Reference]:
    model = palscope.load(f"demo/{request.param}", device="cpu")
    model.model.double()
    weights = model.model.state_dict()
    weights = {name.replace("._original_component", ""): held for name, held in weights.items()}
    return model, Reference(weights, model.model.config.to_dict())


def prompts(model: HookedAudioModel, counts: list[int]) -> dict[str, Tensor]:
    """Rows of so many clips."""
    processor: Any = model.processor
    sounds = [
        scene.waveform.samples[: 16_000 + 4_000 * i] for i, scene in enumerate(bundled_scenes())
    ]
    texts = [
        processor.chat(f"What is heard in row {row}?", clips=n) for row, n in enumerate(counts)
    ]
    return dict(processor(texts, sounds[: sum(counts)], sampling_rate=16_000))


@torch.no_grad()
def test_padded_rows_of_none_one_and_two_clips(both: tuple[HookedAudioModel, Reference]) -> None:
    model, reference = both
    inputs = prompts(model, COUNTS)
    compare(reference, model(inputs), inputs, COUNTS, model.current_route, close=CLOSE)


@torch.no_grad()
def test_a_knockout_and_a_patch(both: tuple[HookedAudioModel, Reference]) -> None:
    model, reference = both
    inputs = prompts(model, [2])
    plain = model(inputs)[0, -1]
    second = Sound(*STRETCH, clip=1)
    which = sound(*STRETCH, 1)
    zero: Change = lambda old, *_: torch.zeros_like(old)  # noqa: E731
    cases: list[tuple[Any, dict[str, Any]]] = [
        (
            Knockout(Address("pattern", second, (0, 5, 9), (0, 4))),
            {"cuts": [Cut(text, which, (0, 5, 9), (0, 4))]},
        ),
        (
            Patch(Address("audio_v", second, (0, 7)), Zero()),
            {"edits": [Edit("audio_v", which, zero, (0, 7))]},
        ),
    ]
    for intervention, rules in cases:
        with intervene(model, inputs, [intervention]):
            logits = model(inputs)
        (last,) = compare(reference, logits, inputs, [2], model.current_route, close=CLOSE, **rules)
        assert (last - plain).abs().max() > 1e-3

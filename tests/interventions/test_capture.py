"""What was captured at a place serves every place within it, and no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope.errors import PalscopeError
from palscope.interventions import Address, Patch, Resample, Sound, Text, capture, intervene
from tests.interventions.conftest import prompt

SITES: list[Any] = ["audio_state", "audio_v", "connector_output", "encoder_output", "pattern"]


ALL_TEXT = Text()


def at(site: Any, start: float, end: float, queries: Text = ALL_TEXT) -> Address:
    layers = None if site in ("connector_output", "encoder_output") else (0,)
    if site == "pattern":
        return Address(site, Sound(start, end), layers, queries=queries)
    return Address(site, Sound(start, end), layers)


@pytest.mark.parametrize("site", SITES)
@torch.no_grad()
def test_values_of_a_stretch_serve_what_lies_in_it_alone(pal: Any, site: Any) -> None:
    inputs, other = prompt(pal, 0), prompt(pal, 1)
    taken = capture(pal, other, at(site, 0.0, 0.6))
    inside = at(site, 0.3, 0.6)
    logits: list[torch.Tensor] = []
    for source in (taken, other):  # captured before, or for the patch itself
        with intervene(pal, inputs, [Patch(inside, Resample(source))]):
            logits.append(pal(inputs)[0, -1])
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], pal(inputs)[0, -1])
    for outside in (at(site, 0.3, 0.9), at(site, 0.6, 0.9)):
        with (
            pytest.raises(PalscopeError, match="was not captured"),
            intervene(pal, inputs, [Patch(outside, Resample(taken))]),
        ):
            pass


@torch.no_grad()
def test_patterns_of_other_queries_are_refused(pal: Any) -> None:
    inputs = prompt(pal)
    taken = capture(pal, prompt(pal, 1), at("pattern", 0.0, 0.6, Text("digit")))
    for queries in (Text("first"), Text()):
        with (
            pytest.raises(PalscopeError, match="was not captured"),
            intervene(pal, inputs, [Patch(at("pattern", 0.0, 0.6, queries), Resample(taken))]),
        ):
            pass

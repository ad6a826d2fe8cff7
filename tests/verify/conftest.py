"""The two sides of a tiny published model."""

from __future__ import annotations

import importlib
from typing import Any

import palscope
from palscope._models.scoring import UserTurn
from palscope._published import published_family
from palscope._verify import Sides
from palscope._verify.own import own_prompt
from palscope._verify.plain import Plain, plain_published
from palscope.audio._waveform import Waveform
from tests.published.contract import RATE, noise

CLIP = Waveform(noise(3.0), RATE, "noise")


def sides_of_tiny(name: str) -> Sides:
    """Of `tests/published/tiny/NAME.py`, each with weights of its own."""
    tiny: Any = importlib.import_module(f"tests.published.tiny.{name}")

    def plain(row: UserTurn) -> Plain:
        model = tiny.model()
        family = published_family(model.config)
        return plain_published(model, family, own_prompt(tiny.processor(), family, row))

    return Sides(name, plain, lambda: palscope.load(tiny.model(), processor=tiny.processor()))

"""The two sides of a tiny published model."""

from __future__ import annotations

import importlib
from typing import Any

import palscope
from palscope.audio.waveform import Waveform
from palscope.published import published_family
from palscope.verify import Sides
from palscope.verify.own import Row, own_prompt
from palscope.verify.plain import Plain, plain_published
from tests.published.contract import RATE, noise

CLIP = Waveform(noise(3.0), RATE, "noise")


def sides_of_tiny(name: str) -> Sides:
    """Of `tests/published/tiny/NAME.py`, each with weights of its own."""
    tiny: Any = importlib.import_module(f"tests.published.tiny.{name}")

    def plain(row: Row) -> Plain:
        model = tiny.model()
        family = published_family(model.config)
        return plain_published(model, family, own_prompt(tiny.processor(), family, row))

    return Sides(name, plain, lambda: palscope.load(tiny.model(), processor=tiny.processor()))

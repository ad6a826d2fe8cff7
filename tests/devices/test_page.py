"""The listening page on a pretended device: its answer, what is ranked, and where it listened."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

from palscope.audio import Waveform
from tests.devices.placed import CPU, ONE, kept, same
from tests.devices.tasks import QUESTION, noise

PAGES = Path(__file__).parents[2] / "dashboards"


def heard(listening: Any, where: str) -> list[Any]:
    model = kept(where, "pal")
    sound = SimpleNamespace(digest=where, waveform=Waveform(noise(0.6), 16_000, "a clip"))
    opened = SimpleNamespace(version=where, model=model)
    ask = listening.Ask(opened, sound, QUESTION, model.current_route)
    answer = listening.listen(ask)
    return [
        answer.tokens,
        answer.first,
        answer.steps,
        listening.attended(ask, 0).pathways,
        listening.queries(ask),
        listening.ranked(ask, ("A", "B")),
        listening.token_grid(ask),
    ]


def test_the_listening_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PAGES))
    listening = importlib.import_module("_listening")
    with sdpa_kernel(SDPBackend.MATH):
        expected = heard(listening, CPU)
    for found, wanted in zip(heard(listening, ONE), expected, strict=True):
        same(found, wanted, rounding=1e-7)

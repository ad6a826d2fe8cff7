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


def results(page: Any, where: str) -> list[Any]:
    model = kept(where, "pal")
    sound = SimpleNamespace(digest=where, waveform=Waveform(noise(0.6), 16_000, "a clip"))
    opened = SimpleNamespace(version=where, model=model)
    ask = page.Ask(opened, sound, QUESTION, model.current_route)
    answer = page.generated_answer(ask)
    return [
        answer.tokens,
        answer.first,
        answer.steps,
        page.attended(ask, 0).pathways,
        page.queries(ask),
        page.ranked(ask, ("A", "B")),
        page.token_grid(ask),
    ]


def test_the_page_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PAGES))
    page = importlib.import_module("_answers")
    with sdpa_kernel(SDPBackend.MATH):
        expected = results(page, CPU)
    for found, wanted in zip(results(page, ONE), expected, strict=True):
        same(found, wanted, rounding=1e-7)

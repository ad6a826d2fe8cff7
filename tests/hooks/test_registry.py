"""The registry of hook points is TransformerLens's own: the same names, order and hook points."""

from __future__ import annotations

from typing import Any

import pytest
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from palscope._hooks import HookedAudioModel
from palscope._models.families import FAMILIES
from palscope._routing import Route
from tests import tiny
from tests.hooks.conftest import make_hooked
from tests.published.contract import CASES, Opened

Scanned = list[tuple[str, str | None, int]]


def scanned(hooked: Any, scan: Any) -> Scanned:
    """Twice, as TransformerLens does: before and after aliases have their names."""
    hooked._hook_registry.clear()
    for module in hooked.modules():
        if isinstance(module, HookPoint):
            module.name = None
    for _ in range(2):
        scan(hooked, hooked, "")
    return [(name, point.name, id(point)) for name, point in hooked._hook_registry.items()]


def check(hooked: Any) -> None:
    built = set(hooked._hook_registry)
    theirs = scanned(hooked, TransformerBridge._scan_existing_hooks)
    assert scanned(hooked, HookedAudioModel._scan_existing_hooks) == theirs and len(theirs) > 100
    assert {name for name, _, _ in theirs} == built


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_of_a_family(tokenizer: Any, family: str) -> None:
    check(make_hooked(tokenizer, Route.pal(tiny.LAYERS), family))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_of_a_published_class(case: Any) -> None:
    check(Opened(case).hooked)

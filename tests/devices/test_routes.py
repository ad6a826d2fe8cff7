"""All that palscope does, on one pretended device and on two: no fault, and the CPU's numbers."""

from __future__ import annotations

import pytest

from palscope._models.families import FAMILIES
from tests.devices.placed import ONE, TWO, check
from tests.devices.tasks import TASKS
from tests.tiny import ROUTES

OTHERS = [name for name in ROUTES if name != "pal"]


AROUND = {"answers", "choices_of_a_batch", "evaluation", "costs", "tokens_alone_and_losses"}
"""What reaches into no layer, and calls the model as others do."""


@pytest.mark.parametrize(
    ("task", "where"),
    [(task, ONE) for task in TASKS] + [(task, TWO) for task in TASKS if task not in AROUND],
)
def test_every_task_under_pal(task: str, where: str) -> None:
    check(where, task, "pal")


@pytest.mark.parametrize("route", OTHERS)
def test_every_route(route: str) -> None:
    check(ONE, "training", route)


@pytest.mark.parametrize("route", OTHERS)
def test_every_route_over_two_devices(route: str) -> None:
    check(TWO, "cells", route)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llama"])
def test_every_decoder_family(family: str) -> None:
    check(ONE, "a_batch", "pal", family)


@pytest.mark.parametrize("family", ["gemma2", "phi3"])
def test_families_whose_masks_or_projections_differ_over_two_devices(family: str) -> None:
    check(TWO, "a_batch", "pal", family)

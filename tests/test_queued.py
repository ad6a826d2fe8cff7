"""What the host sends is the same there, and waits only where it must."""

from __future__ import annotations

import pytest
import torch

from palscope._queued import QUEUING, queued
from tests.devices.pretended import FIRST, waits


@pytest.mark.parametrize("safe", [True, False])
def test_a_copy_is_queued_where_the_device_takes_it_at_once(safe: bool) -> None:
    index = torch.tensor([2, 0, 1])
    with waits() as found:
        if not safe:
            QUEUING.discard("pretend")
        there = queued(index, torch.device(FIRST))
    assert found.total() == (0 if safe else 1)
    assert there.device == torch.device(FIRST) and there.tolist() == [2, 0, 1]
    assert queued(index, torch.device("cpu")) is index


def test_apples_devices_are_waited_for() -> None:
    assert "mps" not in QUEUING

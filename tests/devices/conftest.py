"""Autograd's engine has a queue for one device of a kind, and without threads needs none."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch


@pytest.fixture(autouse=True)
def without_threads() -> Generator[None, None, None]:
    with torch.autograd.set_multithreading_enabled(False):
        yield

"""Visitors of one server in real browsers, each with views of their own."""

from __future__ import annotations

import os

import pytest

from benchmarks.visitors import measure
from tests.dashboards.browser import find_chromium


@pytest.mark.slow
def test_visitors_never_see_each_other_s_answers() -> None:
    """The whole one: `python -m benchmarks.visitors`."""
    if find_chromium() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine: install the system's package chromium")
    faults, took = measure(visitors=4, seconds=12, views_each=2)
    assert faults == [] and len(took) >= 4

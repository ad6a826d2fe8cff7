"""What every test runs under: one thread, no model hub, no display."""

from __future__ import annotations

import gc
import os

# Read when the libraries are imported, so set before any of them is.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
# Two workers on two cores: more threads only wait for each other, in the processes that tests start
# (notebooks, scripts, pages: six times the time) as in their own.
os.environ["OMP_NUM_THREADS"] = os.environ.setdefault("PALSCOPE_TEST_THREADS", "1")

import hypothesis
import pytest
import torch

from tests.shapes import check_shapes_of

check_shapes_of("palscope")

# `make test-kernels` tries more threads, and does without oneDNN, whose matrix products are another
# processor's otherwise.
torch.set_num_threads(int(os.environ["PALSCOPE_TEST_THREADS"]))
torch.backends.mkldnn.enabled = os.environ.get("PALSCOPE_TEST_ONEDNN", "1") != "0"

# How long an example takes depends on the machine; in CI the examples are the same every time.
hypothesis.settings.register_profile(
    "palscope", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("palscope")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that several processes end at nearly the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported stays: a collection that passes it over takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)  # when the file's fixtures are gone
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """So does what is left of a file's tests: modules that they imported, models that are kept."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()

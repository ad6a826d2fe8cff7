"""Stored rows with planted labels: two domains, speakers and takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope.features import ActivationStore
from tests.features.made import store_of

WIDTH, ROWS = 12, 5
"""Numbers in a row, and rows a clip (20 ms each)."""

CLIPS = [
    {
        "name": f"{domain} {label} {speaker} {take}",
        "label": label,
        "domain": domain,
        "split": "validation" if speaker == 2 else "train",
        "group": f"speaker {speaker}" if domain == "speech" else "",
    }
    for domain, labels in (("speech", ("one", "two", "three")), ("sound", ("dog", "rain")))
    for label in labels
    for speaker in range(3)
    for take in range(6)
]
DIRECTIONS: dict[str, int] = {"one": 0, "two": 1, "three": 2, "dog": 3}
"""The dimension that a label's clips are large in."""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """At `planted` a label has a dimension, large in every clip's last 60 ms; `noise` is noise."""
    drawn = torch.Generator().manual_seed(0)
    planted = 0.3 * torch.randn(ROWS * len(CLIPS), WIDTH, generator=drawn) + 1.0
    noise = torch.randn(ROWS * len(CLIPS), WIDTH, generator=drawn)
    for number, clip in enumerate(CLIPS):
        if clip["label"] in DIRECTIONS:
            planted[ROWS * number + 2 : ROWS * (number + 1), DIRECTIONS[clip["label"]]] += 3.0
    planted[:, 11] = 7.0  # constant
    out = tmp_path_factory.mktemp("rows") / "run"
    return store_of(out, {"planted": planted, "noise": noise}, CLIPS, shards=3)


@pytest.fixture(scope="session")
def by_hand(store: ActivationStore) -> Any:
    """Each clip's rows at a hook point, in order."""
    return lambda hook_point: store[hook_point][:].reshape(len(CLIPS), ROWS, WIDTH).double()

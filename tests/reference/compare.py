"""Rows of a padded batch, each against the reference by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from palscope._routing import Route
from tests.reference.edits import Cut, Edit
from tests.reference.model import Reference

CLOSE = {"atol": 1e-9, "rtol": 1e-9}
"""Double rounding (2e-16) through four layers of logits up to 6, and room for sums of any order."""


def rows(batch: Mapping[str, Tensor], clips: Sequence[int]) -> Iterator[tuple[Any, list[int], Any]]:
    """Which columns are real, the ids in them, and the mel frames of the row's `clips`."""
    first = 0
    for row, count in enumerate(clips):
        real = batch["attention_mask"][row].bool()
        mels = [
            batch["input_features"][i, :, : int(batch["feature_lengths"][i])]
            for i in range(first, first + count)
        ]
        first += count
        yield real, batch["input_ids"][row][real].tolist(), mels


def compare(
    reference: Reference,
    logits: Tensor,
    batch: Mapping[str, Tensor],
    clips: Sequence[int],
    route: Route,
    *,
    edits: Sequence[Edit] = (),
    cuts: Sequence[Cut] = (),
    close: Mapping[str, float] = CLOSE,
) -> list[Tensor]:
    """Check each row's logits; gives the reference's at its last token."""
    last: list[Tensor] = []
    for row, (real, ids, mels) in enumerate(rows(batch, clips)):
        wanted, _ = reference(ids, mels, route.to_dict(), edits=edits, cuts=cuts)
        got = logits[row][real]
        torch.testing.assert_close(got[list(wanted)], torch.stack(list(wanted.values())), **close)
        others = [column for column in range(len(ids)) if column not in wanted]
        assert not got[others].any()
        last.append(wanted[len(ids) - 1])
    return last

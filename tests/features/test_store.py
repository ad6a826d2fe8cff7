"""Stored rows are read in any order, a row once, without those of other clips."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from palscope._sweeps.store import Run
from palscope.errors import PalscopeError
from palscope.features import ActivationStore

HOOK = "audio_blocks.0.hook_out"


def test_any_order_gives_the_rows_of_that_order(store: Any) -> None:
    rows = store[HOOK]
    whole = rows[:]
    assert whole.shape == (len(rows), rows.width) and len(rows) == len(rows.rows)
    order = np.random.default_rng(0).integers(0, len(rows), 300)
    assert torch.equal(rows[order], whole[torch.from_numpy(order)])
    assert torch.equal(rows[5], whole[5]) and torch.equal(rows[-1], whole[-1])
    assert torch.equal(rows[[-1, 0]], whole[[-1, 0]]) and rows[[]].shape == (0, rows.width)
    for outside in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            rows[outside]
    assert torch.equal(pickle.loads(pickle.dumps(rows))[3], whole[3])


def test_batches_have_every_row_once(store: Any) -> None:
    rows = store[HOOK]
    whole, again, other = (list(rows.batches(64, seed=seed)) for seed in (0, 0, 1))
    assert [len(each) for each in whole[:-1]] == [64] * (len(rows) // 64)
    assert torch.equal(torch.cat(whole), torch.cat(again))
    assert not torch.equal(torch.cat(whole), torch.cat(other))
    for shuffled in (whole, other):
        assert torch.equal(torch.cat(shuffled).sort(0).values, rows[:].sort(0).values)
    assert not torch.equal(torch.cat(whole), rows[:])
    assert torch.equal(torch.cat(list(rows.batches(50))), rows[:])
    loaded = torch.cat(list(DataLoader(rows, batch_size=100, collate_fn=lambda batch: batch)))
    assert torch.equal(loaded, rows[:])


def test_rows_of_some_clips_are_theirs(store: Any) -> None:
    rows = store[HOOK]
    assert store.clips["label"].tolist() == list("ababababab")
    train = store.clips["split"] == "train"
    chosen = rows.of_clips(train)
    assert set(chosen.rows["clip"]) == set(range(8)) and len(chosen) < len(rows)
    assert torch.equal(chosen[:], rows[: (rows.rows["clip"] < 8).sum()])
    b = chosen.of_clips(store.clips["label"] == "b")
    assert set(b.rows["clip"]) == {1, 3, 5, 7}
    assert torch.equal(b[:], rows[:][np.isin(rows.rows["clip"], [1, 3, 5, 7])])
    with pytest.raises(PalscopeError, match=r"has a row at"):
        chosen.of_clips(~train)
    with pytest.raises(PalscopeError, match="one for each of 10 clips"):
        rows.of_clips([True])


def test_what_is_read_alone_takes_memory(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are opened when a row of theirs is asked for, and mapped."""
    rows = store[HOOK]
    rows[0]
    assert list(rows._opened) == [0]
    rows[len(rows) - 1]
    assert sorted(rows._opened) == [0, 2]


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(PalscopeError, match=r"holds no run.json"):
        ActivationStore(tmp_path)
    Run.open(tmp_path / "run", {"config": {"n": 1}}, resume=False).finish()
    with pytest.raises(PalscopeError, match="another run's folder"):
        ActivationStore(tmp_path / "run")

"""Erasers against LEACE's guarantees, and the package's own result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palscope._directions.erasure import leace
from palscope._directions.logistic import fit_probe
from palscope.directions import Eraser, clip_examples, decodable
from palscope.errors import PalscopeError
from tests.directions.conftest import CLIPS
from tests.features.made import store_of


@pytest.fixture(scope="module")
def speech(store: Any) -> Any:
    return clip_examples(store["planted"].of_clips(store.clips.domain == "speech"))


@pytest.fixture(scope="module")
def train(speech: Any) -> Any:
    return speech.of(speech.clips.split == "train")


def test_no_linear_probe_tells_what_was_erased(train: Any) -> None:
    """On the clips it was fitted on: equal means, no linear regression, a probe at chance."""
    eraser = Eraser.fit(train)
    assert eraser.rank == 2 and eraser.made["labels"] == ["one", "three", "two"]
    erased = eraser.of_examples(train)
    means = [erased[train.labels == label].mean(0) for label in ("one", "two", "three")]
    np.testing.assert_allclose(means, [train.x.mean(0)] * 3, atol=1e-9)
    told = np.eye(3)[np.unique(train.labels, return_inverse=True)[1]]
    rows = np.c_[erased, np.ones(len(erased))]
    left = told - rows @ np.linalg.lstsq(rows, told, rcond=1e-9)[0]
    assert np.square(left).sum() == pytest.approx(np.square(told - told.mean(0)).sum())
    assert (fit_probe(erased, train.labels).logits(erased).std(0) < 1e-6).all()
    assert np.linalg.norm(erased - train.x) > 1.0


def test_labels_are_erased_at_every_time(store: Any) -> None:
    """Labels that change places from one stretch to the next: the mean over the clip has none."""
    rows = store["noise"].of_clips(store.clips.domain == "speech")
    parts = clip_examples(rows, step=0.06)
    for stretch, label in ((0, "one"), (0, "two"), (1, "three"), (1, "one")):
        here = (parts.stretch == stretch) & (parts.labels == label)
        parts.x[here, 3 + stretch] += 4.0
    parts.x[parts.stretch == 1, 7] += 9.0  # time alone
    train, test = (parts.of(parts.clips.split == each) for each in ("train", "validation"))
    eraser = Eraser.fit(train)
    assert eraser.rank == 4 and eraser.made["stretches"] == 2
    erased = eraser.of_examples(train)
    for stretch in (0, 1):
        here = train.stretch == stretch
        means = [erased[here & (train.labels == each)].mean(0) for each in ("one", "two", "three")]
        np.testing.assert_allclose(means, [erased[here].mean(0)] * 3, atol=1e-9)
    late, early = (erased[train.stretch == each].mean(0) for each in (1, 0))
    assert late[7] - early[7] > 5
    table = decodable(train, test, {"labels": eraser}).set_index("erased")
    assert table.accuracy["nothing"] > 0.6 > 0.5 > table.accuracy["labels"]
    assert table.n["labels"] == 2 * 18


def test_it_is_the_packages(train: Any) -> None:
    x = torch.tensor(train.x)
    told = torch.tensor(np.eye(3)[np.unique(train.labels, return_inverse=True)[1]])
    theirs = leace().LeaceFitter.fit(x, told).eraser
    torch.testing.assert_close(Eraser.fit(train).erased(x), theirs(x))


def test_unseen_recordings_are_asked_first(train: Any, speech: Any) -> None:
    test = speech.of(speech.clips.split == "validation")
    eraser = Eraser.fit(train)
    control = Eraser.random(train, eraser.rank, 3)
    assert control.rank == 2
    table = decodable(train, test, {"labels": eraser, "random": control}).set_index("erased")
    assert table["rank"].tolist() == [0, 2, 2] and table.chance.tolist() == [1 / 3] * 3
    assert table.accuracy["nothing"] == 1.0 and table.accuracy["random"] > 0.9
    assert table.accuracy["labels"] < 0.6 and table.recordings.tolist() == [1, 1, 1]
    by_hand = np.linalg.norm(eraser.of_examples(test) - test.x, axis=1).mean() / test.row_norm
    assert table.moved["labels"] == pytest.approx(by_hand) and table.moved["nothing"] == 0
    again = speech.of(speech.clips.group != "speaker 0")
    with pytest.raises(PalscopeError, match="have training and test clips"):
        decodable(train, again, {})


def test_a_random_eraser_is_white(store: Any) -> None:
    """Over many draws it takes the same share of every direction's variance."""
    noise = clip_examples(store["noise"])
    noise.x[:, 0] *= 3
    kept = [
        np.square(Eraser.random(noise, 3, seed).of_examples(noise) - noise.x.mean(0)).mean(0)
        for seed in range(60)
    ]
    shares = np.mean(kept, 0) / noise.x.var(0)
    assert shares.min() > 0.6 and shares.max() < 0.9  # three of twelve


def test_what_cannot_be_erased_is_told(train: Any, tmp_path: Path) -> None:
    one = train.of(train.labels == "one")
    with pytest.raises(PalscopeError, match="all clips have 'one'"):
        Eraser.fit(one)
    with pytest.raises(PalscopeError, match="rank is 13; expected 1 to 12"):
        Eraser.random(train, 13)
    flat = clip_examples(
        store_of(tmp_path / "run", {"site": torch.ones(20, 4)}, CLIPS[:20])["site"]
    )
    eraser = Eraser.fit(flat)  # rows that are all the same hold no label
    assert eraser.rank == 0 and (eraser.of_examples(flat) == flat.x).all()

"""Scores against the same by numpy, pandas and plain counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palscope._features.dictionary import Dictionary
from palscope._features.scores import clip_maxima
from palscope._statistics import auroc_interval, aurocs, resampling
from palscope.errors import PalscopeError
from palscope.features import (
    both_signs,
    dictionary_scores,
    label_scores,
    live_latents,
    matched_cosine,
    random_dictionary,
)
from tests.features.made import store_of

CLIPS = [
    {
        "name": f"{domain} {label} {number}",
        "label": label,
        "domain": domain,
        "split": "train" if number < 3 else "test",
        "group": f"{domain} {number}",
    }
    for domain, labels in (("sound", ("dog", "rain")), ("speech", ("one", "two", "three")))
    for label in labels
    for number in range(5)
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Ten rows a clip of five dimensions; the second is large, the last is constant."""
    drawn = torch.Generator().manual_seed(0)
    values = torch.randn(10 * len(CLIPS), 5, generator=drawn)
    values[:, 1] = 30 * values[:, 1] + 100
    values[:, 4] = 2.5
    for number, clip in enumerate(CLIPS):
        if clip["label"] == "dog":
            values[10 * number + 3, 2] = -9.0  # once in the clip, and at its low end
        if clip["domain"] == "speech":
            values[10 * number : 10 * number + 10, 0] += 20  # the domain, not a label
    return store_of(tmp_path_factory.mktemp("scores") / "run", {"h": values}, CLIPS, shards=4)


@torch.no_grad()
def test_what_is_left_is_counted_as_by_numpy(store: Any) -> None:
    torch.manual_seed(0)
    dictionary = Dictionary(5, 12, kind="topk", k=2).eval()
    dictionary.b_enc[3] = -1e4  # never fires
    rows = store["h"]
    found = dictionary_scores(dictionary, rows)
    x = rows[:].double().numpy()
    latents = dictionary.encode(rows[:])
    left = (x - dictionary(rows[:]).double().numpy()) ** 2
    variance = ((x - x.mean(0)) ** 2).sum(0)
    assert found["fvu"] == pytest.approx(left.sum() / variance.sum(), rel=1e-5)
    of_each = (left.sum(0)[:4] / variance[:4]).mean()  # the last is constant
    assert found["fvu_standardised"] == pytest.approx(of_each, rel=1e-5)
    assert found["l0"] == pytest.approx(float((latents > 0).sum()) / len(x))
    dead = ~(latents > 0).any(0)
    assert dead[3] and found["dead"] == pytest.approx(float(dead.float().mean()))
    assert live_latents(dictionary, rows).tolist() == (~dead).tolist()
    with pytest.raises(PalscopeError, match=r"rows of 5; expected 250 of 4"):
        dictionary_scores(Dictionary(5, 8, k=2, kind="topk", d_out=4), rows)


def test_partners_are_found_in_any_order() -> None:
    drawn = torch.Generator().manual_seed(0)
    one = torch.randn(30, 12, generator=drawn)
    shuffled = torch.cat([7 * one[torch.randperm(30)], torch.randn(5, 12)])
    assert matched_cosine(one, shuffled) == pytest.approx(1)
    assert len(matched_cosine(one, shuffled)) == len(matched_cosine(shuffled, one)) == 30
    # Two that are nearest to the same one: it is the partner of one of them alone.
    near = torch.tensor([[1.0, 0.0], [0.9, 0.1]])
    assert sorted(matched_cosine(near, torch.eye(2)).round(2).tolist()) == pytest.approx([0.11, 1])
    assert matched_cosine(one, torch.randn(30, 12, generator=drawn)).mean() < 0.8


def test_a_label_s_chance_is_that_of_pairs() -> None:
    """Counted pair by pair, ties by half."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (40, 7)).astype(float)
    positive = rng.random(40) < 0.3
    found = aurocs(values, positive)
    for unit, of_unit in enumerate(values.T):
        above = of_unit[positive][:, None] - of_unit[~positive]
        assert found[unit] == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    assert np.isnan(aurocs(values, np.zeros(40, bool))).all()


def test_a_clip_is_the_largest_over_its_rows(store: Any) -> None:
    rows = store["h"]
    speech = rows.of_clips(store.clips["domain"] == "speech")
    clips, found = clip_maxima(speech, both_signs)
    table: Any = rows.rows
    values = torch.cat([rows[:], -rows[:]], 1).numpy()
    assert clips.tolist() == list(range(10, 25))
    for clip, maxima in zip(clips, found, strict=True):
        assert maxima.tolist() == values[(table["clip"] == clip).to_numpy()].max(0).tolist()


def test_the_unit_of_a_label_is_chosen_on_training_clips(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = store["h"]
    train, test = (rows.of_clips(store.clips["split"] == split) for split in ("train", "test"))
    found: Any = label_scores(train, test, both_signs, name="dimensions")
    assert found["label"].tolist() == ["dog", "rain", "one", "three", "two"]
    dog = found[found["label"] == "dog"].iloc[0]
    assert dog["unit"] == 5 + 2 and dog["auroc"] == dog["auroc_train"] == 1
    assert (dog["positives"], dog["n"]) == (2, 4)
    # Of two recordings nothing is known of others; of all clips of a domain, were they enough:
    assert found["low"].isna().all() and found["high"].isna().all()
    monkeypatch.setattr(resampling, "RECORDINGS", 2)
    sure: Any = label_scores(train, test, both_signs)
    assert sure["low"].between(0, sure["auroc"]).all() and (sure["high"] <= 1).all()
    alone = ([2.0, 3.0, 1.0, 0.0], [True, True, False, False], ["3", "4", "3", "4"])
    by_hand = auroc_interval(*(np.array(each) for each in alone[:2]), alone[2])
    assert sure.loc[sure["label"] == "dog", "low"].item() == by_hand.low
    # Dimension 0 tells the domains apart, and no label within one.
    assert (found.loc[found["domain"] == "speech", "auroc"] < 1).all()
    with pytest.raises(PalscopeError, match=r"3 groups of sound, 'sound 0' for one"):
        label_scores(rows, train, both_signs)
    store.clips["group"] = store.clips["domain"]  # all of a domain are one: that is no group
    label_scores(rows, train, both_signs)


@torch.no_grad()
def test_a_random_dictionary_has_the_sizes_and_nothing_learned(store: Any) -> None:
    torch.manual_seed(0)
    learned = Dictionary(5, 12, kind="topk", k=2)
    learned.b_dec.fill_(3.0)
    learned.about = {"hook_point": "h"}
    one, same, other = (random_dictionary(learned, seed) for seed in (0, 0, 1))
    assert torch.equal(one.W_enc, same.W_enc) and not torch.equal(one.W_enc, other.W_enc)
    assert torch.equal(one.b_dec, learned.b_dec) and one.d_sae == 12 and one.k == 2
    for seed, made in enumerate((one, other)):  # and not a training's own beginning
        torch.manual_seed(seed)
        begun = Dictionary(5, 12, kind="topk", k=2)
        assert float((begun.W_dec * made.W_dec).sum(1).mean()) < 0.5
    one.check_rows(store["h"])
    assert (one.encode(store["h"][:]) > 0).sum(1).max() <= 2

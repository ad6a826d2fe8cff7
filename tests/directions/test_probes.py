"""Probes against planted labels, scikit-learn, and plain counting of who is on which side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palscope._directions.folds import folds_apart, folds_within
from palscope._directions.logistic import fit_probe
from palscope._directions.probes import control_guesses, guesses
from palscope._statistics import share_interval
from palscope.directions import clip_examples, probe_scores
from palscope.errors import AudioError, PalscopeError
from tests.directions.conftest import CLIPS
from tests.features.made import store_of

# -- examples --------------------------------------------------------------------------------------


def test_an_example_is_the_mean_over_a_stretch(store: Any, by_hand: Any) -> None:
    values = by_hand("planted").numpy()
    whole = clip_examples(store["planted"])
    np.testing.assert_allclose(whole.x, values.mean(1), rtol=1e-12)
    assert whole.labels.tolist() == [clip["label"] for clip in CLIPS]
    late = clip_examples(store["planted"].of_clips(store.clips.label == "dog"), seconds=(0.05, 1))
    dogs = [number for number, clip in enumerate(CLIPS) if clip["label"] == "dog"]
    np.testing.assert_allclose(late.x, values[dogs, 2:].mean(1), rtol=1e-12)
    parts = clip_examples(
        store["planted"], step=0.04
    )  # the middle of 0.04 to 0.06 is in the second
    assert parts.stretch[:4].tolist() == [0, 1, 2, 0] and len(parts) == 3 * len(CLIPS)
    np.testing.assert_allclose(parts.x[1], values[0, 2:4].mean(0), rtol=1e-12)
    np.testing.assert_allclose(parts.x[5], values[1, 4], rtol=1e-12)
    with pytest.raises(PalscopeError, match="step is 0 s"):
        clip_examples(store["planted"], step=0)
    assert whole.row_norm == pytest.approx(np.linalg.norm(values, axis=-1).mean())


def test_what_has_no_example_is_told(store: Any, tmp_path: Path) -> None:
    with pytest.raises(PalscopeError, match="planted has no row from 3 s to the end"):
        clip_examples(store["planted"], seconds=(3.0, None))
    with pytest.raises(AudioError, match="is no stretch"):
        clip_examples(store["planted"], seconds=(0.2, 0.1))
    values = torch.zeros(4, 3)
    values[2, 1] = torch.nan
    broken = store_of(tmp_path / "run", {"site": values}, CLIPS[:2])
    with pytest.raises(PalscopeError, match="rows at site hold NaN"):
        clip_examples(broken["site"])


def test_clips_belong_together_by_their_group(store: Any) -> None:
    examples = clip_examples(store["planted"])
    told = dict(zip(examples.clips.name, examples.recordings, strict=True))
    assert told["speech one 1 0"] == told["speech two 1 5"] != told["speech one 2 0"]
    assert told["sound dog 1 0"] == "sound dog 1 0"  # without a group by itself
    assert examples.one_group == []
    one = examples.of(examples.clips.group == "speaker 1")
    assert one.one_group == ["speech"] and len(set(one.recordings)) == len(one)


# -- folds -----------------------------------------------------------------------------------------


def test_no_recording_is_on_both_sides() -> None:
    drawn = np.random.default_rng(1)
    recordings = np.char.add("r", drawn.integers(60, size=300).astype(str))
    kind = dict(zip(np.unique(recordings), drawn.choice(["a", "b", "c"], 60), strict=False))
    labels = np.array([kind[name] for name in recordings])
    parts = folds_apart(recordings, labels, 5)
    assert all(len(set(parts[recordings == name])) == 1 for name in kind)
    for label in "abc":
        counts = np.bincount(parts[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 8  # the largest recording has as many
    few = folds_apart(np.array(["x", "y", "x"]), np.array(["a", "b", "b"]), 5)
    assert few.tolist() == [0, 1, 0]
    with pytest.raises(PalscopeError, match=r"all clips are of one recording \('x'\)"):
        folds_apart(np.array(["x", "x"]), np.array(["a", "b"]), 5)


def test_folds_within_spread_each_kind() -> None:
    kinds = np.repeat(["a", "b", "c"], [10, 3, 1])
    parts = folds_within(kinds, 5)
    assert sorted(np.bincount(parts[kinds == "a"])) == [2] * 5
    assert len(set(parts[kinds == "b"])) == 3


# -- the probe -------------------------------------------------------------------------------------


def test_a_probe_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(80, 6)) * [1, 1, 1, 9, 0.1, 1] + 5
    x[:, 5] = 2.0
    labels = np.array(["a", "b", "c"])[(x[:, 0] > 5).astype(int) + (x[:, 3] > 6)]
    ours = fit_probe(x, labels)
    rows = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    theirs = linear.LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(rows, labels)
    np.testing.assert_allclose(ours.weights.T, theirs.coef_, atol=2e-3)
    assert ours.labels == ("a", "b", "c") and (ours.weights[5] == 0).all()
    assert (ours.predict(x) == theirs.predict(rows)).all()
    with pytest.raises(PalscopeError, match="all clips have 'a'"):
        fit_probe(x, np.full(80, "a"))


def test_planted_labels_are_read_and_noise_is_not(store: Any) -> None:
    table = probe_scores(clip_examples(store["planted"])).set_index("domain")
    assert table.accuracy.tolist() == [1.0, 1.0] and table.labels.tolist() == [3, 2]
    assert table.recordings.tolist() == [3, 36] and set(table["apart"]) == {"recording"}
    assert table.chance.tolist() == [1 / 3, 1 / 2]
    speech = table.loc["speech"]
    assert np.isnan(speech.low) and speech["values"].numbers == (1, 1, 1)  # of three speakers
    sound = table.loc["sound"]
    assert (sound.low, sound.high) == share_interval(np.ones(36), np.ones(36))
    assert np.isnan(sound.control)  # every clip is the only one of its pair
    noise = probe_scores(clip_examples(store["noise"])).set_index("domain")
    assert (noise.accuracy < 0.7).all() and (noise.control.dropna() < 0.7).all()
    early = probe_scores(clip_examples(store["planted"], seconds=(0, 0.04)))
    assert (early.accuracy < 0.75).all() and early.end.tolist() == [0.04, 0.04]


def test_speakers_alone_are_no_labels(store: Any) -> None:
    """Labels that hang on the speaker are not told of unseen speakers, and are learned by heart."""
    examples = clip_examples(store["noise"].of_clips(store.clips.domain == "speech"))
    for number, name in enumerate(sorted(set(examples.recordings))):
        examples.x[examples.recordings == name, number] += 20  # a speaker's voice
    examples.clips["label"] = examples.clips["group"]
    assert guesses(examples).right.mean() < 0.5
    heard = control_guesses(examples)
    assert heard.right.mean() == 1.0 and len(heard.right) == len(examples)


def test_a_domain_of_one_recording_is_told(store: Any) -> None:
    one = clip_examples(store["planted"].of_clips(store.clips.group == "speaker 1"))
    (row,) = probe_scores(one).to_dict("records")
    assert row["apart"] == "clip" and row["recordings"] == 18
    same = clip_examples(store["planted"].of_clips(store.clips.label == "dog"))
    with pytest.raises(PalscopeError, match="no domain at planted has clips of two labels"):
        probe_scores(same)

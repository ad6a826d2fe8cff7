"""Directions against planted ones, plain means and numpy's SVD; where they belong is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palscope._directions.found import two_sides
from palscope.directions import Direction, clip_examples, direction_scores, find_direction
from palscope.errors import CheckpointError, PalscopeError
from palscope.features import Dictionary
from tests.directions.conftest import CLIPS, WIDTH
from tests.features.made import RECORD, store_of


@pytest.fixture(scope="module")
def examples(store: Any) -> Any:
    return clip_examples(store["planted"])


def unit(vector: Any) -> np.ndarray:
    found = np.asarray(vector, dtype=float)
    return found / np.linalg.norm(found)


def of_label(by_hand: Any, label: str) -> np.ndarray:
    numbers = [number for number, clip in enumerate(CLIPS) if clip["label"] == label]
    return by_hand("planted").numpy()[numbers].mean(1)


@pytest.mark.parametrize("by", ["means", "probe", "pairs"])
def test_a_planted_direction_is_found(by: Any, examples: Any, by_hand: Any) -> None:
    """Of "one" and "two": dimension 0 less dimension 1, and one dose leads from mean to mean."""
    found = find_direction(examples, "one", "two", by=by)
    wanted = unit(np.eye(WIDTH)[0] - np.eye(WIDTH)[1])
    one, two = (of_label(by_hand, each) for each in ("one", "two"))
    # A probe's weight is in deviations of each dimension: what reads best, not what differs most.
    scale = np.concatenate([one, two]).std(0) if by == "probe" else 1.0
    assert unit(found.vector.numpy() * scale) @ wanted > 0.95
    along = unit(found.vector)
    assert found.norm == pytest.approx((one.mean(0) - two.mean(0)) @ along, rel=1e-5)
    if by == "means":
        np.testing.assert_allclose(found.vector, one.mean(0) - two.mean(0), atol=1e-6)
    if by == "pairs":  # of one speaker, in order
        component = np.linalg.svd(one - two)[2][0]
        assert abs(unit(found.vector) @ component) == pytest.approx(1)
    assert found.made["by"] == by and found.made["positives"] == 18 and found.made["clips"] == 36
    assert found.record == {name: RECORD[name] for name in ("weights", "route")}
    assert found.relative_norm == pytest.approx(found.norm / examples.row_norm)


def test_others_of_the_domain_are_the_other_side(examples: Any, by_hand: Any) -> None:
    found = find_direction(examples, "one")
    rest = np.concatenate([of_label(by_hand, each) for each in ("two", "three")])
    wanted = of_label(by_hand, "one").mean(0) - rest.mean(0)
    np.testing.assert_allclose(found.vector, wanted, atol=1e-6)


def test_scores_are_of_unseen_recordings_beside_controls(examples: Any, store: Any) -> None:
    at_two = Direction(torch.eye(WIDTH)[1], "planted")
    table = direction_scores(examples, "dog", draws=4, given={"two": at_two})
    told = table.set_index(["by", "control"])
    for by in ("means", "probe", "pairs"):
        assert told.auroc[by, "none"] == 1.0 and told.low[by, "none"] == 1.0
        assert 0.05 < told.auroc[by, "shuffled"] < 0.95
        assert told.highest[by, "shuffled"] >= told.auroc[by, "shuffled"]
    assert 0.2 < told.auroc["two", "none"] < 0.8 and told.n["means", "none"] == 36
    noise = direction_scores(clip_examples(store["noise"]), "dog", ways=["probe"], draws=2)
    assert noise.auroc[0] < 0.8
    alone = direction_scores(examples, "dog", ways=["means"], draws=1, folds=99)
    assert alone.auroc[0] == 1.0  # one recording left out at a time


def test_a_direction_of_the_speaker_tells_nobody_else(store: Any) -> None:
    examples = clip_examples(store["noise"].of_clips(store.clips.domain == "speech"))
    heard = (examples.recordings == "speech/speaker 1") & (examples.labels == "one")
    examples.x[heard, 0] += 50
    table = direction_scores(examples, "one", ways=["means"], draws=1)
    assert table.auroc[0] < 0.75  # on clips that it was found on: 1.0 of a third of them


@pytest.mark.parametrize(
    ("label", "against", "says"),
    [
        ("four", None, "the label 'four' is not among dog, one, rain, three, two"),
        ("dog", "one", "no clip of 'one' in the domain 'sound'"),
    ],
)
def test_labels_that_do_not_go_together_are_told(
    examples: Any, label: str, against: Any, says: str
) -> None:
    with pytest.raises(PalscopeError, match=says):
        two_sides(examples, label, against)


def test_a_latent_writes_its_row_of_the_decoder() -> None:
    dictionary = Dictionary(6, 8, kind="topk", k=2)
    with pytest.raises(PalscopeError, match="does not say at which hook point"):
        Direction.of_latent(dictionary, 3)
    dictionary.about = {"hook_point": "site", "record": {"weights": {"a": 1}}}
    found = Direction.of_latent(dictionary, 3)
    latents = torch.zeros(1, 8)
    written = [dictionary.decode(latents + row)[0] for row in (0, torch.eye(8)[3])]
    torch.testing.assert_close(found.vector, (written[1] - written[0]).detach())
    assert found.hook_point == "site" and found.record == {"weights": {"a": 1}}
    with pytest.raises(PalscopeError, match="no latent 8; there are 8"):
        Direction.of_latent(dictionary, 8)
    across = Dictionary(6, 8, k=2, d_out=5)
    across.about = {"hook_point": "site", "hook_point_out": "out"}
    assert Direction.of_latent(across, 0).hook_point == "out"


def test_a_random_direction_is_as_long(examples: Any) -> None:
    found = find_direction(examples, "one")
    drawn = found.random(3)
    assert drawn.norm == pytest.approx(found.norm) and drawn.made["of"] == found.made
    assert torch.equal(drawn.vector, found.random(3).vector)
    assert abs(unit(drawn.vector) @ unit(found.vector)) < 0.9
    assert not torch.equal(drawn.vector, found.random(4).vector)


def test_what_is_saved_is_loaded(examples: Any, tmp_path: Path) -> None:
    found = find_direction(examples, "one", by="probe")
    found.save(tmp_path / "one")
    again = Direction.load(tmp_path / "one")
    assert torch.equal(again.vector, found.vector)
    for name in ("hook_point", "made", "record", "row_norm"):
        assert getattr(again, name) == getattr(found, name)
    with pytest.raises(CheckpointError, match="expected a direction"):
        Direction.load(tmp_path)
    (tmp_path / "one" / "direction.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"direction\.safetensors"):
        Direction.load(tmp_path / "one")


def test_another_site_width_or_model_is_refused(examples: Any, store: Any, tmp_path: Path) -> None:
    found = find_direction(examples, "one")
    found.check_rows(store["planted"])
    with pytest.raises(PalscopeError, match="is of planted, not of noise"):
        found.check_rows(store["noise"])
    narrow = store_of(tmp_path / "narrow", {"planted": torch.zeros(4, 3)})
    with pytest.raises(PalscopeError, match="has 12 numbers, but planted is 3 wide"):
        found.check_rows(narrow["planted"])
    other = Direction(found.vector, "planted", record={"weights": {"checkpoint": "other"}})
    with pytest.raises(PalscopeError, match="of another model than this direction"):
        other.check_rows(store["planted"])
    for wrong in (torch.zeros(3), torch.ones(2, 3), torch.tensor([torch.nan])):
        with pytest.raises(PalscopeError, match="one vector of finite numbers, not all 0"):
            Direction(wrong, "planted")

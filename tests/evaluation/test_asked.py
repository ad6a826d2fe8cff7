"""Labelled clips with questions: domains take turns, evenly over labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from palscope.datasets._manifest import ManifestError
from palscope.datasets._questions import LABELS
from palscope.evaluation._asked import labelled_questions


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [
        f"{domain}{number}.wav,{domain},{label},{split}"
        for domain, labels in (("sound", ("dog", "rain")), ("music", ("harp", "flute", "organ")))
        for split in ("train", "validation")
        for number, label in enumerate(labels * 3)
    ]
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(["path,domain,label,split", *rows]) + "\n", encoding="utf-8")
    return path


def test_domains_take_turns_and_labels_are_spread(manifest: Path) -> None:
    asked = labelled_questions(manifest, split="validation", limit=3)
    assert [clip.domain for clip, _ in asked] == ["sound", "music"] * 3
    assert {clip.split for clip, _ in asked} == {"validation"}
    assert {item.answer for _, item in asked} == {"dog", "rain", "harp", "flute", "organ"}
    for clip, item in asked:
        assert item.answer == clip.label and item.domain == clip.domain
        assert item.choices == LABELS[clip.domain]


def test_a_shorter_domain_ends_first(manifest: Path) -> None:
    domains = [clip.domain for clip, _ in labelled_questions(manifest, split="train")]
    assert domains == ["sound", "music"] * 6 + ["music"] * 3


def test_wordings_are_those_of_the_seed(manifest: Path) -> None:
    first, again, other = (
        [item.question for _, item in labelled_questions(manifest, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_the_packages_own_clips_are_the_default() -> None:
    asked = labelled_questions(None, limit=1)
    assert sorted(clip.domain for clip, _ in asked) == ["music", "sound", "speech"]
    assert all(clip.path.is_file() for clip, _ in asked)


def test_a_split_without_rows_is_an_error(manifest: Path) -> None:
    with pytest.raises(ManifestError, match="no row has split 'test'"):
        labelled_questions(manifest, split="test")

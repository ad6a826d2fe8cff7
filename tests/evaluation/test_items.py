from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palscope.audio._compose import LabelledSpan
from palscope.datasets._examples import Example
from palscope.datasets._manifest import Clip, ManifestError
from palscope.datasets._questions import LABELS
from palscope.evaluation._items import (
    candidates,
    clean_label,
    example_items,
    manifest_items,
    swap_audio,
    take_evenly,
)


class Nothing:
    def __getitem__(self, clip: Clip) -> np.ndarray:
        return np.full(4, ord(clip.name[-1]), np.float32)


def clip(name: str, domain: str, label: str) -> Clip:
    return Clip(name, Path("/nowhere") / name, domain, label)


def some(labels: list[str], domain: str = "sound") -> list[Clip]:
    return [clip(f"{number}", domain, label) for number, label in enumerate(labels)]


def test_candidates_are_the_known_labels_then_the_new_ones() -> None:
    clips = [*some(["dog", "Owl", "wren"]), *some(["B", "a"], "birds")]
    assert candidates(clips) == {
        "sound": (*LABELS["sound"], "owl", "wren"),
        "birds": ("a", "b"),
    }


def test_labels_are_written_as_answers() -> None:
    assert clean_label("Crying_baby ") == "crying baby"
    items = manifest_items(some(["Crying_baby"]), Nothing(), candidates(some(["Crying_baby"])))
    assert items[0].answer == "crying baby"
    assert items[0].choices == LABELS["sound"]


def test_an_unknown_domain_is_asked_with_its_labels() -> None:
    clips = some(["wren", "owl"], "birds")
    for item in manifest_items(clips, Nothing(), candidates(clips), wordings="heldout"):
        assert "wren" in item.question and "owl" in item.question


def test_wording_hangs_on_the_name_and_not_on_the_company() -> None:
    clips = some(["dog", "rain", "sneeze", "dog"])
    choices = candidates(clips)
    whole = manifest_items(clips, Nothing(), choices)
    part = manifest_items(clips[2:], Nothing(), choices)
    assert [item.question for item in whole[2:]] == [item.question for item in part]
    assert len({item.question for item in whole}) > 1


@given(
    labels=st.lists(st.sampled_from("abcd"), min_size=2, max_size=30),
    other=st.lists(st.sampled_from("xy"), min_size=2, max_size=6),
    seed=st.integers(0, 99),
)
def test_swapped_audio_has_another_label_of_the_same_domain(
    labels: list[str], other: list[str], seed: int
) -> None:
    clips = [
        *some(labels),
        *(clip(f"o{number}", "speech", label) for number, label in enumerate(other)),
    ]
    if len(set(labels)) < 2 or len(set(other)) < 2:
        with pytest.raises(ManifestError, match="all clips of domain"):
            swap_audio(clips, seed)
        return
    heard = swap_audio(clips, seed)
    for own, swapped in zip(clips, heard, strict=True):
        assert own.domain == swapped.domain
        assert own.label != swapped.label
    if max(Counter(labels).values()) * 2 <= len(labels):
        own_domain = heard[: len(labels)]
        assert sorted(c.name for c in own_domain) == sorted(c.name for c in some(labels))
    assert heard == swap_audio(clips, seed)


def test_swapped_items_keep_question_and_truth_and_change_the_audio() -> None:
    clips = some(["dog", "rain", "sneeze", "dog", "rain"])
    own = manifest_items(clips, Nothing(), candidates(clips))
    swapped = manifest_items(clips, Nothing(), candidates(clips), swapped=True)
    by_sound = {ord(c.name): c.label for c in clips}
    for before, after in zip(own, swapped, strict=True):
        assert (before.question, before.answer) == (after.question, after.answer)
        assert before.in_audio == (before.answer,)
        assert after.in_audio != before.in_audio
        assert after.in_audio == (by_sound[int(after.asked().waveforms[0][0])],)


def test_a_limit_is_spread_over_domains_and_labels() -> None:
    clips = [*some(["dog"] * 5 + ["rain"] * 5), *some(["one"] * 5, "speech")]
    taken = take_evenly(clips, 6)
    assert Counter(c.label for c in taken) == {"dog": 2, "rain": 1, "one": 3}
    assert take_evenly(clips, 99) == clips


def test_composed_items_hear_all_their_labels() -> None:
    spans = [LabelledSpan("three", 0.0, 0.4), LabelledSpan("seven", 0.6, 1.0)]
    example = Example(
        [np.zeros(9, np.float32)], "First?", "three", "digit_first", ["three", "seven"], spans
    )
    (item,) = example_items("temporal_digits", [example])
    assert item.key == "temporal_digits/0"
    assert (item.domain, item.in_audio) == ("digit_first", ("three", "seven"))
    assert item.asked().choices == ["three", "seven"]

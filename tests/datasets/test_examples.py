from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from palscope.datasets._examples import MIX, DemoExamples, Example, validation_examples
from palscope.datasets._manifest import Clip, Corpus, ManifestError
from palscope.datasets._questions import COUNTS, HELDOUT, LABELS, TRAIN
from palscope.errors import PalscopeError

RATE = 16_000


@pytest.fixture(scope="module")
def drawn(corpus: Corpus) -> list[Example]:
    examples = DemoExamples(corpus, size=600, seed=5)
    return [examples[index] for index in range(600)]


def family(example: Example) -> str:
    for start, name in (("mixed", "mixed"), ("digit_", "temporal_digits")):
        if example.kind.startswith(start):
            return name
    return "temporal_sounds" if example.kind.startswith("sound_") else example.kind


def test_an_example_is_a_function_of_seed_and_index(corpus: Corpus, drawn: list[Example]) -> None:
    fresh = DemoExamples(corpus, size=10, seed=5)
    for index in (7, 3, 9, 0):
        again = fresh[index]
        assert (again.question, again.answer) == (drawn[index].question, drawn[index].answer)
        np.testing.assert_array_equal(again.waveforms[0], drawn[index].waveforms[0])
    other = DemoExamples(corpus, size=10, seed=6)
    assert any(other[index].question != drawn[index].question for index in range(10))
    with pytest.raises(IndexError):
        fresh[10]
    assert len(fresh) == 10


def test_the_mix_is_as_stated(drawn: list[Example]) -> None:
    assert sum(MIX.values()) == pytest.approx(1.0)
    counts = Counter(family(example) for example in drawn)
    for name, share in MIX.items():
        assert counts[name] / len(drawn) == pytest.approx(share, abs=0.06)


def test_labels_are_even(drawn: list[Example]) -> None:
    sounds = Counter(example.answer for example in drawn if example.kind == "sound")
    assert set(sounds) == set(LABELS["sound"])
    assert max(sounds.values()) < 3 * min(sounds.values())


def test_clips_are_short_sound_and_finite(drawn: list[Example]) -> None:
    for example in drawn:
        (samples,) = example.waveforms
        assert samples.dtype == np.float32 and np.isfinite(samples).all()
        assert 0.3 * RATE < len(samples) <= 6.01 * RATE
        assert np.abs(samples).max() > 1e-3
        for span in example.spans:
            assert 0 <= span.start < span.end <= len(samples) / RATE + 0.02


def test_answers_are_the_truth_of_the_spans(drawn: list[Example], corpus: Corpus) -> None:
    composed = [
        example
        for kind in ("temporal_digits", "temporal_sounds", "mixed")
        for example in validation_examples(corpus, kind, n=60)
    ]
    kinds: set[str] = set()
    for example in [*drawn, *composed]:
        heard = [span.label for span in sorted(example.spans, key=lambda span: span.start)]
        kinds.add(example.kind)
        match example.kind:
            case "digit_first" | "sound_first":
                assert example.answer == heard[0]
            case "digit_second":
                assert example.answer == heard[1]
            case "digit_last" | "sound_last":
                assert example.answer == heard[-1]
            case "digit_count":
                assert example.answer == COUNTS[len(heard) - 1]
            case "digit_list":
                assert example.answer == " ".join(heard)
                assert example.choices == []
            case "sound_list":
                assert example.answer == ", ".join(heard)
                assert example.choices == []
            case _:
                assert example.answer in heard
        if not example.kind.endswith("_list"):
            assert example.answer in example.choices
            assert len(set(example.choices)) == len(example.choices)
    assert kinds >= {
        "digit_first", "digit_second", "digit_last", "digit_count", "digit_list",
        "sound_first", "sound_last", "sound_list", "mixed_sound", "mixed_digit", "mixed_instrument",
    }  # fmt: skip


def test_order_questions_tell_places_apart_by_distinct_labels(drawn: list[Example]) -> None:
    for example in drawn:
        if example.kind in ("digit_first", "digit_second", "digit_last", "sound_first"):
            labels = [span.label for span in example.spans]
            assert len(set(labels)) == len(labels) >= 2


def test_mixed_clips_ask_about_one_of_two_domains(drawn: list[Example]) -> None:
    for example in drawn:
        if example.kind.startswith("mixed_"):
            domains = {
                domain
                for span in example.spans
                for domain, labels in LABELS.items()
                if span.label in labels
            }
            assert len(domains) == 2


def asked_with(example: Example, table: dict[str, tuple[str, ...]], task: str) -> bool:
    heads = [wording.split("{")[0] for wording in table[task]]
    return any(example.question.startswith(head) for head in heads)


@pytest.mark.parametrize("kind", ["sound", "digit", "instrument"])
def test_validation_singles_are_whole_clips_of_unheard_groups(corpus: Corpus, kind: str) -> None:
    examples = validation_examples(corpus, kind)
    domain = {"sound": "sound", "digit": "speech", "instrument": "music"}[kind]
    assert len(examples) == 2 * len(LABELS[domain])
    assert set(Counter(example.answer for example in examples).values()) == {2}
    heldout = validation_examples(corpus, kind, wordings="heldout")
    own = {clip.label: clip for clip in corpus.clips if clip.split == "validation"}
    for trained, unseen in zip(examples, heldout, strict=True):
        np.testing.assert_array_equal(trained.waveforms[0], unseen.waveforms[0])
        np.testing.assert_array_equal(trained.waveforms[0], corpus.waveforms[own[trained.answer]])
        assert asked_with(trained, TRAIN, kind) and asked_with(unseen, HELDOUT, kind)
        assert not asked_with(unseen, TRAIN, kind)
    first = validation_examples(corpus, kind, n=len(LABELS[domain]))
    assert {example.answer for example in first} == set(LABELS[domain])


def test_validation_clips_are_never_trained_on(corpus: Corpus) -> None:
    class Spy:
        def __init__(self) -> None:
            self.splits: set[str] = set()

        def __getitem__(self, clip: Clip) -> np.ndarray:
            self.splits.add(clip.split)
            return corpus.waveforms[clip]

    training, validation = Spy(), Spy()
    examples = DemoExamples(replace(corpus, waveforms=training), size=60)
    assert len([examples[index] for index in range(60)]) == 60
    for kind in MIX:
        validation_examples(replace(corpus, waveforms=validation), kind, n=10)
    assert training.splits == {"train"}
    assert validation.splits == {"validation"}


def test_validation_lists_are_fixed_and_not_augmented(corpus: Corpus) -> None:
    for kind in ("temporal_digits", "temporal_sounds", "mixed"):
        first = validation_examples(corpus, kind, n=5)
        again = validation_examples(corpus, kind, n=3)
        for one, two in zip(first[:3], again, strict=True):
            assert one.question == two.question
            np.testing.assert_array_equal(one.waveforms[0], two.waveforms[0])
    assert len(validation_examples(corpus, "temporal_sounds")) == 200


def test_a_corpus_without_all_labels_is_refused(corpus: Corpus) -> None:
    poor = replace(corpus, clips=tuple(c for c in corpus.clips if c.label != "rooster"))
    with pytest.raises(ManifestError, match="rooster"):
        DemoExamples(poor, size=1)
    with pytest.raises(PalscopeError, match="temporal_digits"):
        validation_examples(corpus, "words")

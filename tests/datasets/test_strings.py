"""Strings of words: what is said when, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palscope.datasets._manifest import Clip, Corpus, ManifestError
from palscope.datasets._strings import spoken_strings

WORDS = ("one", "two", "three", "four", "five")


class Tones:
    """Every word of every speaker is a constant of its own, between silence."""

    def __getitem__(self, clip: Clip) -> Any:
        level = 1 + WORDS.index(clip.label) + (10 if clip.group == "b" else 0)
        return np.pad(np.full(3200, 0.01 * level, np.float32), 1600)


def corpus(speakers: str = "ab", words: tuple[str, ...] = WORDS) -> Corpus:
    clips = [
        Clip(f"{who}{word}", Path(word), "speech", word, group=who)
        for who in speakers
        for word in words
    ]
    return Corpus(tuple(clips), Tones())


def test_words_sound_within_their_spans_and_nothing_does_between() -> None:
    for scene in spoken_strings(corpus(), n=20, seed=0):
        silent = np.ones(len(scene.samples), dtype=bool)
        assert 3 <= len(scene.spans) <= 5
        assert len({span.label for span in scene.spans}) == len(scene.spans)
        for span in scene.spans:
            within = slice(round(span.start * 16_000), round(span.end * 16_000))
            assert within.stop - within.start == 3200
            np.testing.assert_allclose(scene.samples[within], 0.05, rtol=1e-5)
            silent[within] = False
        assert not scene.samples[silent].any()
        pauses = np.diff([0, *(edge for span in scene.spans for edge in span[1:]), scene.seconds])
        assert ((pauses[::2] > 0.0999) & (pauses[::2] < 0.3001)).all()


def test_the_first_strings_do_not_hang_on_their_number() -> None:
    few, many = (spoken_strings(corpus(), n=n, seed=3) for n in (2, 6))
    for one, other in zip(few, many, strict=False):
        assert one.spans == other.spans
        np.testing.assert_array_equal(one.samples, other.samples)
    assert spoken_strings(corpus(), n=6, seed=4)[0].spans != many[0].spans


def test_a_string_is_one_speaker_s() -> None:
    asked: list[set[str]] = []

    class Watched(Tones):
        def __getitem__(self, clip: Clip) -> Any:
            asked[-1].add(clip.group)
            return super().__getitem__(clip)

    watched = Corpus(corpus().clips, Watched())
    for seed in range(12):
        asked.append(set())
        spoken_strings(watched, n=1, seed=seed)
    assert all(len(who) == 1 for who in asked) and {"a", "b"} == set().union(*asked)


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"no speaker .* says 5 different words"):
        spoken_strings(corpus(words=WORDS[:4]), n=1, seed=0)

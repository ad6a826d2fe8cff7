from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palscope.audio._bundled import bundled_notes
from palscope.audio._compose import active_part
from palscope.datasets._manifest import Clip, Corpus, ManifestError
from palscope.datasets._questions import LABELS
from palscope.errors import AudioError, PalscopeError
from palscope.pairs import Pair, bundled_pairs, matched, swap_pairs
from palscope.pairs._pair import rms
from palscope.pairs._swaps import KINDS, SLOT_RMS, SLOT_STEP_S, SOUND_S, bundled_corpus
from tests.pairs.conftest import heard, tones

DOMAINS = {
    "sound": "sound",
    "digit": "speech",
    "instrument": "music",
    "speaker": "speech",
    "first_digit": "speech",
    "last_digit": "speech",
    "sound_order": "sound",
    "last_sound": "sound",
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_clips_are_equally_long_and_loud_in_every_slot(corpus: Corpus, kind: str) -> None:
    table = matched(swap_pairs(corpus, kind, n=30, seed=1))
    assert table["difference_db"].abs().max() < 1e-4
    slots = table[(table["segment"] != "clip") & (table["segment"] != "silence")]
    np.testing.assert_allclose(slots["clean_db"], 20 * np.log10(SLOT_RMS), atol=1e-4)
    # Ends on the coarsest grid of the demo: no token belongs to two segments.
    steps = table["end_s"] / SLOT_STEP_S
    np.testing.assert_allclose(steps, steps.round(), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_meant_differs(corpus: Corpus, kind: str) -> None:
    table = matched(swap_pairs(corpus, kind, n=20, seed=0))
    parts = table[table["segment"] != "clip"]
    assert (parts["identical"] != parts["differs"]).all()
    swapped = set(parts["segment"][parts["differs"]])
    assert swapped == {
        "first_digit": {"first digit"},
        "last_digit": {"second digit"},
        "sound_order": {"first sound", "second sound"},
        "last_sound": {"first sound", "second sound"},
        "instrument": {"music"},
        "sound": {"sound"},
    }.get(kind, {"digit"})


def sounding(pair: Pair, side: str) -> list[tuple[str, str]]:
    """Label and speaker heard in each slot."""
    samples = getattr(pair, side).samples
    return [
        heard(samples[segment.slice], DOMAINS[pair.kind])
        for segment in pair.segments
        if segment.name != "silence"
    ]


@pytest.mark.parametrize("kind", ["sound", "digit", "instrument"])
def test_one_clip_for_one_of_another_label(corpus: Corpus, kind: str) -> None:
    for pair in swap_pairs(corpus, kind, n=20, seed=0):
        (clean,), (corrupt,) = sounding(pair, "clean"), sounding(pair, "corrupt")
        assert (clean[0], corrupt[0]) == (pair.clean_answer, pair.corrupt_answer)
        if kind == "digit":
            assert clean[1] == corrupt[1], "the digit alone is swapped, not the speaker"


def test_one_speaker_for_another(corpus: Corpus) -> None:
    for pair in swap_pairs(corpus, "speaker", n=20, seed=0):
        ((digit, speaker),), ((same, other),) = sounding(pair, "clean"), sounding(pair, "corrupt")
        assert digit == same == pair.clean_answer and speaker != other
        assert pair.corrupt_answer is None
        assert speaker in pair.name and other in pair.name


@pytest.mark.parametrize(("kind", "asked"), [("first_digit", 0), ("last_digit", -1)])
def test_one_of_two_digits_and_the_question_is_about_it(
    corpus: Corpus, kind: str, asked: int
) -> None:
    for pair in swap_pairs(corpus, kind, n=20, seed=0):
        clean, corrupt = sounding(pair, "clean"), sounding(pair, "corrupt")
        assert clean[asked][0] == pair.clean_answer
        assert corrupt[asked][0] == pair.corrupt_answer
        kept = clean[-1 - asked]
        assert kept == corrupt[-1 - asked]
        assert kept[0] not in (pair.clean_answer, pair.corrupt_answer)
        assert len({speaker for _, speaker in clean + corrupt}) == 1
        assert kind.split("_")[0] in pair.question
        assert [segment.name for segment in pair.segments] == [
            "first digit",
            "silence",
            "second digit",
        ]
        assert rms(pair.clean.samples[pair.segments[1].slice]) == 0


def test_two_sounds_exchanged(corpus: Corpus) -> None:
    for pair in swap_pairs(corpus, "sound_order", n=10, seed=0):
        first, silence, second = pair.segments
        clean, corrupt = pair.clean.samples, pair.corrupt.samples
        np.testing.assert_array_equal(clean[first.slice], corrupt[second.slice])
        np.testing.assert_array_equal(clean[second.slice], corrupt[first.slice])
        assert rms(clean[silence.slice]) == 0
        labels = [label for label, _ in sounding(pair, "clean")]
        assert labels == [pair.clean_answer, pair.corrupt_answer]
        assert "first" in pair.question


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pairs_for_a_seed_and_no_pair_twice(corpus: Corpus, kind: str) -> None:
    pairs, fewer = (swap_pairs(corpus, kind, n=n, seed=3) for n in (60, 7))
    for pair, again in zip(pairs, fewer, strict=False):
        assert (pair.name, pair.segments) == (again.name, again.segments)
        np.testing.assert_array_equal(pair.clean.samples, again.clean.samples)
        np.testing.assert_array_equal(pair.corrupt.samples, again.corrupt.samples)
    assert len({pair.name for pair in pairs}) == 60
    assert len({(pair.clean.source, pair.corrupt.source) for pair in pairs}) == 60
    other = swap_pairs(corpus, kind, n=7, seed=4)
    assert [pair.name for pair in other] != [pair.name for pair in fewer]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_come_evenly(corpus: Corpus, kind: str) -> None:
    labels = LABELS[DOMAINS[kind]]
    pairs = swap_pairs(corpus, kind, n=3 * len(labels), seed=0)
    expected = dict.fromkeys(labels, 3)
    assert Counter(pair.clean_answer for pair in pairs) == expected
    if kind != "speaker":
        assert Counter(pair.corrupt_answer for pair in pairs) == expected
        answers = [(pair.clean_answer, pair.corrupt_answer) for pair in pairs]
        if kind not in ("first_digit", "last_digit"):  # there, the kept digit may be another
            assert len(set(answers)) == len(answers)


def test_a_short_sound_stands_in_the_middle_of_the_shortest_slot() -> None:
    long, short = tones(takes=1), 0.4

    class Barks:
        def __getitem__(self, clip: Clip) -> np.ndarray:
            samples = long.waveforms[clip]
            return samples[: round((0.1 + short) * 16_000)] if clip.label == "dog" else samples

    clips = tuple(c for c in long.clips if c.label in ("dog", "rain"))
    pair = swap_pairs(Corpus(clips, Barks()), "sound", n=1, seed=0)[0]
    sides = {"dog": pair.clean.samples, "rain": pair.corrupt.samples}
    if pair.clean_answer != "dog":
        sides = {"dog": pair.corrupt.samples, "rain": pair.clean.samples}
    assert pair.seconds == SOUND_S[0]
    start, end = active_part(sides["dog"])
    assert (end - start) / 16_000 == pytest.approx(short, abs=0.05)
    assert start == pytest.approx(len(sides["dog"]) - end, abs=700)
    assert active_part(sides["rain"]) == (0, len(sides["rain"]))


def test_no_peak_leaves_full_scale() -> None:
    quiet = tones(takes=1)

    class Ticks:
        def __getitem__(self, clip: Clip) -> np.ndarray:
            samples = 0.1 * quiet.waveforms[clip]
            samples[40_000] = 0.9
            return samples

    pairs = swap_pairs(Corpus(quiet.clips, Ticks()), "sound", n=5, seed=0)
    peaks = [np.abs(w.samples).max() for pair in pairs for w in (pair.clean, pair.corrupt)]
    assert max(peaks) == pytest.approx(1.0) and max(peaks) <= 1.0
    assert matched(pairs)["difference_db"].abs().max() < 1e-4


def test_cuts_do_not_click(corpus: Corpus) -> None:
    class Square:
        def __getitem__(self, clip: Clip) -> np.ndarray:
            return np.where(corpus.waveforms[clip] >= 0, 0.1, -0.1).astype(np.float32)

    for pair in swap_pairs(Corpus(corpus.clips, Square()), "sound", n=3, seed=0):
        for samples in (pair.clean.samples, pair.corrupt.samples):
            assert samples[0] == samples[-1] == 0
            assert np.abs(samples[:20]).max() < 0.02 and np.abs(samples[200:300]).max() > 0.04


def test_splits_are_kept_apart() -> None:
    plain = tones()
    clips = tuple(
        replace(clip, split="train" if clip.name.endswith("0") else "validation")
        for clip in plain.clips
    )
    pairs = swap_pairs(Corpus(clips, plain.waveforms), "digit", n=40, seed=0, split="train")
    assert all(w.source.endswith("0") for pair in pairs for w in (pair.clean, pair.corrupt))


def test_too_many_pairs_says_how_many_there_are() -> None:
    few = tones(speakers=("ann",), takes=1)
    assert len(swap_pairs(few, "digit", n=90, seed=0)) == 90
    with pytest.raises(PalscopeError, match="only 90 different"):
        swap_pairs(few, "digit", n=91, seed=0)


def test_what_a_corpus_may_lack(corpus: Corpus) -> None:
    with pytest.raises(PalscopeError, match="no kind of pair 'dgit'"):
        swap_pairs(corpus, "dgit", n=1, seed=0)
    with pytest.raises(PalscopeError, match="needs two"):
        swap_pairs(tones(speakers=("ann",)), "speaker", n=1, seed=0)
    with pytest.raises(ManifestError, match="no clips of domain 'music'"):
        swap_pairs(corpus, "instrument", n=1, seed=0, split="train")
    one = Corpus(tuple(c for c in corpus.clips if c.label == "dog"), corpus.waveforms)
    with pytest.raises(PalscopeError, match="need 2 labels; the corpus has dog"):
        swap_pairs(one, "sound", n=1, seed=0)
    apart = Corpus(
        tuple(c for c in corpus.clips if (c.label in ("one", "two")) == (c.group == "ann")),
        corpus.waveforms,
    )
    with pytest.raises(PalscopeError, match="no speaker"):
        swap_pairs(apart, "digit", n=90, seed=0)


def test_a_silent_clip_is_named(corpus: Corpus) -> None:
    class Silent:
        def __getitem__(self, clip: Clip) -> np.ndarray:
            return np.zeros(16_000, dtype=np.float32)

    with pytest.raises(AudioError, match="is silent"):
        swap_pairs(Corpus(corpus.clips, Silent()), "digit", n=1, seed=0)


def test_bundled_pairs() -> None:
    pairs = bundled_pairs()
    assert Counter(pair.kind for pair in pairs) == dict.fromkeys(
        ("digit", "instrument", "sound", "first_digit", "last_digit"), 4
    )
    assert len({pair.name for pair in pairs}) == 20
    table = matched(pairs)
    assert table[table["segment"] == "clip"]["difference_db"].abs().max() < 1e-4
    for pair in pairs:
        domain = LABELS[DOMAINS[pair.kind]]
        assert pair.clean_answer in domain and pair.corrupt_answer in domain
        assert np.abs(pair.clean.samples).max() <= 1.0
    for pair in pairs:
        pair.clean.samples[:] = 0  # whoever writes into them changes nobody else's
    assert all(pair.clean.samples.any() for pair in bundled_pairs())


def test_music_is_cut_into_the_notes_of_the_clean_clip() -> None:
    notes = bundled_notes()
    for pair in swap_pairs(bundled_corpus(), "instrument", n=12, seed=0):
        assert [s.name for s in pair.segments] == [
            f"note {number + 1}" for number in range(len(pair.segments))
        ]
        onsets = notes[notes["path"].str.endswith(pair.clean.source)]["start_s"].to_numpy()
        between = np.array([s.start for s in pair.segments[1:]])
        # Trimming and padding move all notes alike, by less than half a second.
        rests = np.diff([0, *between]), np.diff(onsets)[: len(between)]
        np.testing.assert_allclose(rests[0][1:], rests[1][1:], atol=1e-3)
        assert abs(between[0] - onsets[1]) < 0.5


def test_an_onset_is_where_the_segment_begins(tmp_path: Path) -> None:
    """A clip of two notes with silence before: the second segment begins where it sounds."""

    class Notes:
        def __getitem__(self, clip: Clip) -> np.ndarray:
            time = np.arange(32_000) / 16_000
            hertz = np.where(time < 1.2, 400, 800)
            return (0.3 * np.sin(2 * np.pi * hertz * time) * (time >= 0.4)).astype(np.float32)

    clips = tuple(
        Clip(label, tmp_path / f"{label}.wav", "music", label) for label in ("harp", "organ")
    )
    (tmp_path / "notes.csv").write_text(
        "file,duration_s,notes (start-end:midi pitch)\n"
        "harp.wav,2.0,0.4-1.2:67 1.2-2.0:79\n"
        "organ.wav,2.0,0.4-1.2:67 1.2-2.0:79\n",
        encoding="utf-8",
    )

    class Louder(Notes):
        def __getitem__(self, clip: Clip) -> np.ndarray:
            samples = super().__getitem__(clip)
            return np.sign(samples) * 0.2 if clip.label == "organ" else samples

    pair = swap_pairs(Corpus(clips, Louder()), "instrument", n=1, seed=0)[0]
    first, second = pair.segments
    for segment, hertz in ((first, 400), (second, 800)):
        samples = pair.clean.samples[segment.slice]
        crossings = np.sum(samples[:-1] * samples[1:] < 0)
        assert crossings == pytest.approx(2 * hertz * 0.8, abs=4)


def test_notes_that_cannot_be_read(tmp_path: Path) -> None:
    clips = tuple(Clip(name, tmp_path / name, "music", name) for name in ("harp", "organ"))
    plain = tones()

    class Music:
        def __getitem__(self, clip: Clip) -> np.ndarray:
            return plain.waveforms[replace(clip, name="x0", group="ann")]

    corpus = Corpus(clips, Music())
    assert [s.name for s in swap_pairs(corpus, "instrument", n=1, seed=0)[0].segments] == ["music"]
    for table in ("file,notes\nharp,0.0:3\norgan,0.0:3\n", "file,begin\nharp,0\norgan,0\n"):
        (tmp_path / "notes.csv").write_text(table, encoding="utf-8")
        with pytest.raises(ManifestError, match="no note times"):
            swap_pairs(corpus, "instrument", n=1, seed=0)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palscope.audio import Waveform
from palscope.errors import AudioError, PalscopeError
from palscope.pairs import Pair, matched
from palscope.pairs._pair import Segment, self_pair
from tests.shapes import unchecked

RATE = 16_000
TIME = np.arange(RATE) / RATE


def waveform(samples: np.ndarray, rate: int = RATE) -> Waveform:
    return Waveform(samples.astype(np.float32), rate, "test")


LOW, HIGH = (np.sin(2 * np.pi * hertz * TIME) for hertz in (440, 880))
with unchecked():
    STEREO = waveform(np.stack([LOW, LOW]))
HALVES = (Segment("first", 0.0, 0.5, False), Segment("second", 0.5, 1.0, True))


@pytest.fixture
def pair() -> Pair:
    second = TIME >= 0.5
    return Pair(
        name="low_high",
        kind="tone",
        question="Which tone?",
        clean=waveform(0.2 * LOW),
        corrupt=waveform(0.2 * np.where(second, 0.5 * HIGH, LOW)),
        clean_answer="low",
        corrupt_answer="high",
        segments=HALVES,
    )


def test_what_differs_and_how_long_it_lasts(pair: Pair) -> None:
    assert pair.seconds == 1.0
    assert pair.differing == (HALVES[1],)
    assert HALVES[1].slice == slice(8000, 16000)


def test_the_digest_follows_all_that_results_depend_on(pair: Pair) -> None:
    later = (Segment("first", 0.0, 0.25, False), Segment("second", 0.25, 1.0, True))
    changes = (
        {"name": "high_low"},
        {"kind": "pitch"},
        {"question": "Which?"},
        {"clean_answer": "deep"},
        {"corrupt_answer": None},
        {"segments": later},
        {"corrupt": waveform(HIGH)},
        {"clean": pair.corrupt, "corrupt": pair.clean},
    )
    digests = {pair.digest, *(replace(pair, **change).digest for change in changes)}
    assert len(digests) == 1 + len(changes)
    assert replace(pair, changes=("trimmed",)).digest == pair.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrupt": waveform(HIGH[:-1])}, "16000 samples, the corrupt one 15999"),
        ({"corrupt": waveform(HIGH, 8000)}, "16000 and 8000 Hz; expected 16000 Hz"),
        ({"clean": STEREO}, "expected mono"),
        ({"corrupt": waveform(0.2 * LOW)}, "identical, but the kind is 'tone'"),
        ({"kind": "self"}, "different, but the kind is 'self'"),
        ({"segments": ()}, "none s"),
        ({"segments": HALVES[:1]}, "from 0 to 1 s"),
        ({"segments": HALVES[1:]}, "from 0 to 1 s"),
        ({"segments": HALVES[::-1]}, "without gap"),
        ({"segments": (HALVES[0], Segment("late", 0.6, 1.0, True))}, "without gap"),
        ({"segments": (HALVES[0], Segment("early", 0.4, 1.0, True))}, "or overlap"),
        ({"segments": (HALVES[0], Segment("long", 0.5, 1.1, True))}, "from 0 to 1 s"),
        (
            {"segments": (Segment("tiny", 0.0, 1e-5, False), Segment("rest", 1e-5, 1.0, True))},
            "'tiny' holds no sample",
        ),
    ],
)
def test_clips_that_are_no_pair(pair: Pair, change: dict, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        replace(pair, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "name a file"),
        ({"name": ".."}, "name a file"),
        ({"name": ""}, "name a file"),
        ({"question": " "}, "question"),
        ({"clean_answer": ""}, "clean_answer"),
        ({"corrupt_answer": ""}, "None if unknown"),
        ({"corrupt_answer": "low"}, "both answers are 'low'"),
        ({"segments": (HALVES[0], replace(HALVES[1], name="first"))}, "one name"),
    ],
)
def test_words_that_are_no_pair(pair: Pair, change: dict, message: str) -> None:
    with pytest.raises(PalscopeError, match=message):
        replace(pair, **change)


@pytest.mark.parametrize(
    "bounds", [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.0, np.inf), (0, np.nan)]
)
def test_a_segment_is_a_stretch_of_time(bounds: tuple[float, float]) -> None:
    with pytest.raises(AudioError, match="no stretch of time"):
        Segment("x", *bounds, True)


def test_the_self_pair_is_the_clean_clip_twice(pair: Pair) -> None:
    same = self_pair(pair)
    assert same.corrupt is same.clean is pair.clean
    assert same.corrupt_answer == "low" and same.kind == "self" and same.name != pair.name
    assert same.differing == ()


def test_matched_measures_both_sides_over_clip_and_segments(pair: Pair) -> None:
    table = matched([pair, self_pair(pair)])
    assert list(table["segment"]) == ["clip", "first", "second"] * 2
    assert list(table["samples"]) == [16000, 8000, 8000] * 2
    assert list(table["identical"]) == [False, True, False, True, True, True]
    # a sine of amplitude 0.2 has an RMS of 0.1414: -17 dB; half of it is 6 dB less
    clip, first, second = table.to_dict("records")[:3]
    assert first["clean_db"] == pytest.approx(-16.99, abs=0.01) and first["difference_db"] == 0
    assert second["corrupt_db"] == pytest.approx(-23.01, abs=0.01)
    assert second["difference_db"] == pytest.approx(-6.02, abs=0.01)
    assert clip["difference_db"] == pytest.approx(10 * np.log10((1 + 0.25) / 2), abs=0.01)
    assert (table["difference_db"][3:] == 0).all()


def test_matched_shows_what_is_shorter_but_as_loud_over_all(pair: Pair) -> None:
    short = 0.2 * np.sqrt(2) * np.where(TIME < 0.5, LOW, 0)
    table = matched(
        [replace(pair, corrupt=waveform(short), segments=(Segment("tone", 0.0, 1.0, True),))]
    )
    assert table["difference_db"][0] == pytest.approx(0, abs=0.01)
    assert table["sounding_difference_db"][0] == pytest.approx(3.01, abs=0.01)


def test_matched_with_silence(pair: Pair) -> None:
    table = matched([replace(pair, corrupt=waveform(0 * LOW))])
    assert (table["difference_db"] == -np.inf).all()
    quiet = np.where(TIME < 0.5, 0, LOW)
    table = matched([replace(pair, clean=waveform(quiet), corrupt=waveform(quiet * 0.9))])
    assert table["difference_db"][1] == 0 and table["clean_db"][1] == -np.inf

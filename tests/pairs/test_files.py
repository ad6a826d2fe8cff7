from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from palscope.datasets._manifest import ManifestError
from palscope.errors import AudioError, PalscopeError
from palscope.pairs import matched, pair_from_files, read_pairs
from palscope.pairs._pair import Segment

RATE = 16_000
ASKED = ("Which tone?", "low", "high")


def write(path: Path, hertz: float, *, seconds: float = 1.0, amplitude: float = 0.2) -> Path:
    time = np.arange(round(seconds * RATE)) / RATE
    sf.write(path, amplitude * np.sin(2 * np.pi * hertz * time), RATE, subtype="FLOAT")
    return path


@pytest.fixture
def low(tmp_path: Path) -> Path:
    return write(tmp_path / "low tone.wav", 400)


def test_files_that_match_are_left_as_they_are(low: Path, tmp_path: Path) -> None:
    high = write(tmp_path / "high.wav", 800)
    pair = pair_from_files(low, high, *ASKED)
    assert pair.changes == () and pair.kind == "files" and pair.name == "low-tone_high"
    assert (pair.question, pair.clean_answer, pair.corrupt_answer) == ASKED
    np.testing.assert_array_equal(pair.corrupt.samples, sf.read(high, dtype="float32")[0])
    assert pair.segments == (Segment("clip", 0.0, 1.0, True),)


def test_another_rate_and_two_channels(low: Path, tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    tone = 0.2 * np.sin(2 * np.pi * 800 * time)
    sf.write(tmp_path / "cd.wav", np.stack([tone, tone], axis=1), 44_100)
    pair = pair_from_files(low, tmp_path / "cd.wav", *ASKED)
    assert len(pair.corrupt.samples) == len(pair.clean.samples) == RATE


@pytest.mark.parametrize("side", ["clean", "corrupt"])
def test_the_shorter_one_is_followed_by_silence(low: Path, tmp_path: Path, side: str) -> None:
    short = write(tmp_path / "short.wav", 800, seconds=0.9)
    files = (short, low) if side == "clean" else (low, short)
    pair = pair_from_files(*files, *ASKED)
    assert pair.seconds == 1.0 and len(pair.clean.samples) == len(pair.corrupt.samples) == RATE
    assert not getattr(pair, side).samples[round(0.9 * RATE) :].any()
    assert getattr(pair, side).samples[: round(0.9 * RATE)].any()
    assert pair.changes[0] == f"{side}: 0.100 s of silence added at the end"
    assert matched([pair])["difference_db"].abs().max() < 1e-4


def test_the_corrupt_one_is_brought_to_the_clean_ones_level(low: Path, tmp_path: Path) -> None:
    soft = write(tmp_path / "soft.wav", 800, amplitude=0.1)
    pair = pair_from_files(low, soft, *ASKED)
    assert pair.changes == ("corrupt: the clip scaled by +6.0 dB",)
    assert matched([pair])["difference_db"].abs().max() < 1e-4
    np.testing.assert_array_equal(pair.clean.samples, sf.read(low, dtype="float32")[0])


PARTS = [Segment("before", 0.0, 0.4, False), Segment("word", 0.4, 0.7, True)]
PARTS.append(Segment("after", 0.7, 1.0, False))


def edited(low: Path, tmp_path: Path, amplitude: float) -> Path:
    samples, _ = sf.read(low, dtype="float32")
    time = np.arange(RATE) / RATE
    inside = (time >= 0.4) & (time < 0.7)
    samples[inside] = amplitude * np.sin(2 * np.pi * 800 * time[inside])
    sf.write(tmp_path / "edited.wav", samples, RATE, subtype="FLOAT")
    return tmp_path / "edited.wav"


def test_of_an_edited_copy_only_the_edit_is_scaled(low: Path, tmp_path: Path) -> None:
    pair = pair_from_files(low, edited(low, tmp_path, 0.05), *ASKED, segments=PARTS)
    assert pair.changes == ("corrupt: segment 'word' scaled by +12.0 dB",)
    table = matched([pair])
    assert list(table["identical"]) == [False, True, False, True]
    assert table["difference_db"].abs().max() < 1e-4


def test_a_recording_of_its_own_is_scaled_as_a_whole(low: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.wav", 800, amplitude=0.1)
    pair = pair_from_files(low, other, *ASKED, segments=PARTS)
    assert pair.changes == ("corrupt: the clip scaled by +6.0 dB",)


def test_segments_may_end_with_the_shorter_file(low: Path, tmp_path: Path) -> None:
    short = write(tmp_path / "short.wav", 800, seconds=0.9)
    parts = [Segment("a", 0.0, 0.5, False), Segment("b", 0.5, 0.9, True)]
    pair = pair_from_files(low, short, *ASKED, segments=parts)
    assert pair.segments == (parts[0], Segment("b", 0.5, 1.0, True))
    with pytest.raises(AudioError, match="from 0 to 1 s"):
        pair_from_files(low, short, *ASKED, segments=parts[:1])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"seconds": 0.7}, r"lasts 0.70 s, the other clip 1.00 s.*at most 25%"),
        ({"amplitude": 0.01}, "26.0 dB softer"),
        ({"amplitude": 4.0}, "26.0 dB louder"),
        ({"amplitude": 0.0}, "silent"),
        ({"hertz": 400}, "identical"),
    ],
)
def test_files_that_are_no_pair(low: Path, tmp_path: Path, made: dict, message: str) -> None:
    other = write(tmp_path / "other.wav", **({"hertz": 800} | made))
    with pytest.raises(AudioError, match=message):
        pair_from_files(low, other, *ASKED)


def test_an_edit_that_is_silent_has_no_level(low: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="segment 'word' is silent in one"):
        pair_from_files(low, edited(low, tmp_path, 0.0), *ASKED, segments=PARTS)


def test_a_missing_file_and_equal_answers(low: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        pair_from_files(low, tmp_path / "none.wav", *ASKED)
    high = write(tmp_path / "high.wav", 800)
    with pytest.raises(PalscopeError, match="both answers"):
        pair_from_files(low, high, "Which?", "low", "low")
    assert pair_from_files(low, high, "Which?", "low", None).corrupt_answer is None


HEADER = "clean,corrupt,question,clean_answer,corrupt_answer,start_s,end_s,comment\n"
ROW = "low tone.wav,edited.wav,Which tone?,low,"


def test_a_manifest_of_pairs(low: Path, tmp_path: Path) -> None:
    edited(low, tmp_path, 0.2)
    (tmp_path / "pairs.csv").write_text(
        HEADER + f"{ROW}high,0.4,0.7,mine\n" + f"{ROW},0,0.7,\n" + f"{ROW}high,,,\n",
        encoding="utf-8",
    )
    first, second, third = read_pairs(tmp_path / "pairs.csv")
    assert [(s.name, s.start, s.end, s.differs) for s in first.segments] == [
        ("before", 0.0, 0.4, False),
        ("changed", 0.4, 0.7, True),
        ("after", 0.7, 1.0, False),
    ]
    assert [s.name for s in second.segments] == ["changed", "after"]
    assert [s.name for s in third.segments] == ["clip"]
    assert first.corrupt_answer == "high" and second.corrupt_answer is None
    assert first.name == "000_low-tone_edited" and third.name == "002_low-tone_edited"
    assert matched([first])["identical"].tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (HEADER, ManifestError, "no rows"),
        ("clean,question\na,b\n", ManifestError, "corrupt, clean_answer, corrupt_answer missing"),
        (HEADER + ",edited.wav,Which?,low,high,,,\n", ManifestError, "line 2: column clean is"),
        (HEADER + f"{ROW}high,0.4,x,\n", ManifestError, "line 2: start_s is '0.4' and end_s 'x'"),
        (HEADER + f"{ROW}high,0.4,,\n", ManifestError, "seconds in both"),
        (HEADER + f"{ROW}high,,,\n{ROW}high,0.4,1.7,\n", AudioError, "line 3: .*within the clip's"),
        (HEADER + f"{ROW}high,0.7,0.4,\n", AudioError, "line 2: .*within the clip's"),
        (HEADER + f"{ROW}high,nan,0.4,\n", AudioError, "line 2: .*within the clip's"),
        (HEADER + f"{ROW}low,,,\n", PalscopeError, "line 2: .*both answers"),
        (HEADER + "no.wav,edited.wav,Which?,low,high,,,\n", AudioError, "line 2: .*does not exist"),
    ],
)
def test_a_manifest_that_cannot_be_used(
    low: Path, tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    edited(low, tmp_path, 0.2)
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_pairs(tmp_path / "pairs.csv")


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        read_pairs(tmp_path / "none.csv")
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not UTF-8 text"):
        read_pairs(tmp_path / "pairs.csv")

"""Files of many formats, whole and damaged, against the samples that were written into them."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from palscope.audio import load_audio
from palscope.errors import AudioError, AudioWarning
from tests.audio.encoders import LOSSY, PCM, chirp, encode, lag

RATES = st.sampled_from([8_000, 16_000, 24_000, 44_100, 48_000])
# Encoders' frames at the ends: MP3 pads by up to three at 8 kHz.
PADDING_S = 0.25
# Before version 18 PyAV dropped the frames of a packet that ends in an error.
KEEPS_FRAMES = int(version("av").split(".")[0]) >= 18
TOLD = re.compile("Fetch or export the file again|Check that the file is whole")


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        load_audio(source, **options)
    return str(caught.value)


# --- whole files --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PCM)
@settings(max_examples=2, deadline=None)
@given(
    rate=RATES,
    channels=st.integers(1, 8),
    seconds=st.sampled_from([0.001, 0.1, 0.37, 1.0]),
)
def test_what_was_written_is_read_to_the_sample(
    kind: str, rate: int, channels: int, seconds: float
) -> None:
    samples = chirp(rate, seconds, channels)
    loaded = load_audio(encode(samples, rate, kind), sample_rate=rate)
    assert len(loaded.samples) == len(samples)
    np.testing.assert_allclose(loaded.samples, samples.mean(1), atol=PCM[kind][2] + 1e-7)


@pytest.mark.parametrize("kind", LOSSY)
@settings(max_examples=2, deadline=None)
@given(rate=RATES, channels=st.integers(1, 2), seconds=st.sampled_from([0.3, 1.0, 2.3]))
def test_no_format_shifts_or_shortens(kind: str, rate: int, channels: int, seconds: float) -> None:
    if kind in ("opus", "webm", "webm live") and rate == 44_100:
        rate = 48_000  # Opus knows no other
    true = chirp(rate, seconds, channels)
    loaded = load_audio(encode(true, rate, kind), sample_rate=rate).samples
    assert -0.03 < len(loaded) / rate - seconds < PADDING_S
    # What states its encoder's delay starts at once; the others start late by that delay, which
    # nothing in the file tells, and never early.
    late = lag(loaded, true.mean(1))
    untold = kind in ("aac", "m4a fragments", "mp3 no header", "mp3 vbr no header")
    assert 0 <= late < 2400 if untold else abs(late) <= rate / 5000
    # No stretch is lost in between.
    tail = slice(late + len(true) // 2, late + len(true) - 1)
    assert abs(lag(loaded[tail], true.mean(1)[len(true) // 2 :])) <= rate / 5000


def test_a_file_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    true = chirp(16_000, 0.2)
    for name in ("a.raw", "b.mp3", "ünïcode ☂.wav", "no ending"):
        path = tmp_path / name
        path.write_bytes(encode(true, 16_000, "wav"))
        np.testing.assert_allclose(load_audio(path).samples, true[:, 0], atol=4e-5)
    (tmp_path / "link.flac").symlink_to(tmp_path / "a.raw")
    assert load_audio(tmp_path / "link.flac").seconds == pytest.approx(0.2)


def test_joined_files_are_read_whole() -> None:
    one, other = chirp(44_100, 0.9, 2), chirp(16_000, 0.7)
    for kind, slack in (("mp3", 0.3), ("mp3 no header", 0.3), ("ogg", 0.03), ("aac", 0.3)):
        joined = encode(one, 44_100, kind) + encode(one, 44_100, kind)
        loaded = load_audio(joined, sample_rate=44_100)
        assert 1.8 - 0.03 < loaded.seconds < 1.8 + slack
        assert abs(lag(loaded.samples[40_000:], one.mean(1)) + 40_000 - 39_690) < slack * 44_100
    # The rate may change where they meet.
    for kind in ("mp3", "mp3 no header", "aac"):
        loaded = load_audio(encode(one, 44_100, kind) + encode(other, 16_000, kind))
        assert 1.6 - 0.03 < loaded.seconds < 1.6 + 0.4
        start = 14_400 - 200
        late = lag(loaded.samples[start:], other[:, 0]) + start - 14_400
        assert 0 <= late < 0.3 * 16_000


@pytest.mark.parametrize("kind", ["mp3 no header", "mp3"])
def test_tags_and_padding_behind_mp3_are_no_damage(kind: str) -> None:
    data = encode(chirp(24_000, 1.0), 24_000, kind)
    plain = load_audio(data, sample_rate=24_000).samples
    tagged = load_audio(data + b"TAG" + b"x" * 125, sample_rate=24_000).samples
    np.testing.assert_array_equal(tagged, plain)
    with pytest.warns(AudioWarning, match="no sound"):
        padded = load_audio(data + bytes(4096), sample_rate=24_000).samples
    np.testing.assert_array_equal(padded[: len(plain)], plain)
    middle = len(data) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        with pytest.raises((AudioError, AudioWarning)):  # zeros over frames
            load_audio(data[:middle] + bytes(1500) + data[middle + 1500 :])


def test_flac_that_does_not_state_its_length() -> None:
    data = bytearray(encode(chirp(16_000, 0.5), 16_000, "flac"))
    at = data.index(b"fLaC") + 8 + 13  # the low 36 of the bits that count samples
    data[at] &= 0xF0
    data[at + 1 : at + 5] = bytes(4)
    assert load_audio(bytes(data)).seconds == 0.5
    assert "damaged" in refused(bytes(data[: len(data) * 3 // 4]))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
@pytest.mark.parametrize("riff", [0, None, 0xFFFFFFFF])
def test_wav_of_a_recorder_that_never_finished(size: int, riff: int | None) -> None:
    true = chirp(16_000, 0.5)
    data = bytearray(encode(true, 16_000, "wav"))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    if riff is not None:
        data[4:8] = struct.pack("<I", riff)
    for source in (bytes(data), Pipe(bytes(data))):
        np.testing.assert_allclose(load_audio(source).samples, true[:, 0], atol=4e-5)
    if KEEPS_FRAMES:
        assert load_audio(bytes(data[:-1])).seconds == pytest.approx(0.5, abs=1e-4)
    else:
        assert TOLD.search(refused(bytes(data[:-1])))


def test_an_empty_wav_does_not_play_its_other_chunks() -> None:
    data = encode(np.zeros((0, 1)), 16_000, "wav")
    listed = data + b"LIST" + struct.pack("<I", 40) + b"INFO" + bytes(range(36))
    assert "holds no sound" in refused(listed)


def test_the_default_of_several_tracks_is_read_and_said() -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        streams: list[Any] = []
        for hertz in (300, 2000):
            stream: Any = container.add_stream("pcm_s16le", rate=16_000)
            stream.layout = "mono"
            streams.append((stream, hertz))
        for stream, hertz in streams:
            tone = 8000 * np.sin(2 * np.pi * hertz * np.arange(8000) / 16_000)
            frame = av.AudioFrame.from_ndarray(
                tone.astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 16_000, 0
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    with pytest.warns(AudioWarning, match="2 sound tracks; number 1"):
        heard = load_audio(file.getvalue()).samples
    assert np.abs(np.fft.rfft(heard)).argmax() == 150  # 300 Hz in half a second


# --- damage -------------------------------------------------------------------------------------

STATED = [
    *("wav", "wav 24", "rf64", "w64", "flac", "aiff", "au", "caf", "caf alac", "mp3", "ogg"),
    *("opus", "m4a", "webm", "adpcm"),
]


@pytest.mark.parametrize("kind", STATED)
@settings(max_examples=3, deadline=None)
@given(left=st.floats(0.02, 0.97), pipe=st.booleans())
@example(left=0.96875, pipe=False)
def test_a_file_cut_short_is_told(kind: str, left: float, pipe: bool) -> None:
    data = encode(chirp(48_000, 1.5), 48_000, kind)
    cut = data[: int(len(data) * left)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        with pytest.raises((AudioError, AudioWarning)) as caught:
            load_audio(Pipe(cut) if pipe else cut)
    told = str(caught.value)
    if isinstance(caught.value, AudioWarning):  # a whole page of Ogg, some frames of the others
        assert re.search({"mp3": "ms before", "webm": "ms before"}.get(kind, "may be cut"), told)
    else:
        assert TOLD.search(told)


CHECKED = ["flac", "ogg", "opus", "w64", "caf", "m4a", "mp3"]


@pytest.mark.parametrize("kind", CHECKED)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.floats(0.3, 0.8), lost=st.integers(600, 3000))
def test_a_stretch_lost_in_the_middle_is_told(kind: str, at: float, lost: int) -> None:
    data = encode(chirp(48_000, 2.5), 48_000, kind)
    start = int(len(data) * at)
    assert TOLD.search(refused(data[:start] + data[start + lost :]))


@settings(max_examples=12, deadline=None)
@given(at=st.floats(0.2, 0.98), bit=st.integers(0, 7), kind=st.sampled_from(["flac", "ogg"]))
def test_a_turned_bit_is_told_where_there_is_a_checksum(at: float, bit: int, kind: str) -> None:
    data = bytearray(encode(chirp(16_000, 1.0), 16_000, kind))
    data[int(len(data) * at)] ^= 1 << bit
    assert TOLD.search(refused(bytes(data)))


def test_the_second_damaged_file_is_told_like_the_first() -> None:
    data = bytearray(encode(chirp(16_000, 1.0), 16_000, "flac"))
    data[len(data) // 2] ^= 16
    assert refused(bytes(data)) == refused(bytes(data)) == refused(bytes(data))


def test_a_header_that_counts_itself_is_warned_of() -> None:
    true = chirp(16_000, 0.5)
    data = bytearray(encode(true, 16_000, "wav"))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 16_000 + 44)
    with pytest.warns(AudioWarning, match="states 44 bytes of sound more"):
        loaded = load_audio(bytes(data))
    np.testing.assert_allclose(loaded.samples, true[:, 0], atol=4e-5)


@pytest.mark.parametrize("kind", ["flac", "mp3 no header"])
def test_junk_behind_the_sound_is_left_out_and_warned_of(kind: str) -> None:
    data = encode(chirp(16_000, 1.0), 16_000, kind)
    if kind == "flac" and not KEEPS_FRAMES:
        assert TOLD.search(refused(data + b"what is this? " * 80))
        return
    with pytest.warns(AudioWarning, match="no sound"):
        loaded = load_audio(data + b"what is this? " * 80)
    np.testing.assert_array_equal(loaded.samples, load_audio(data).samples)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from([*PCM, *LOSSY]),
    seed=st.integers(0, 1 << 30),
    edits=st.integers(1, 30),
    length=st.floats(0, 1.2),
)
def test_no_damage_ends_in_a_traceback(kind: str, seed: int, edits: int, length: float) -> None:
    data = bytearray(encode(chirp(16_000, 0.4, 2), 16_000, kind))
    rng = np.random.default_rng(seed)
    for _ in range(edits):
        start = int(rng.integers(len(data)) * rng.choice([0.1, 1]))
        piece = rng.bytes(int(rng.integers(1, 40)))
        data[start : start + int(rng.integers(0, 40))] = piece
    data = data[: int(len(data) * length)] + rng.bytes(int(max(0, length - 1) * 5000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        try:
            assert np.isfinite(load_audio(bytes(data), max_seconds=60).samples).all()
        except AudioError as error:
            assert "uploaded bytes" in str(error)


@pytest.mark.parametrize("channels", [7, 8, 10])
def test_more_channels_than_a_frame_has_room_for(channels: int) -> None:
    """PyAV's own conversion reads past the planes of such frames."""
    import soundfile

    file = io.BytesIO()
    true = chirp(48_000, 0.5, channels)
    soundfile.write(file, true, 48_000, format="OGG", subtype="VORBIS")
    loaded = load_audio(file.getvalue(), sample_rate=48_000)
    assert abs(lag(loaded.samples, true.mean(1))) <= 2


# --- pipes and other sources --------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """Read once from start to end; `more` goes on without one."""

    def __init__(self, data: bytes, more: Callable[[int], bytes] = lambda _: b"") -> None:
        self._file = io.BytesIO(data)
        self._more = more
        self.taken = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer)) or self._more(len(buffer))
        self.taken += len(data)
        assert self.taken < 1 << 30, "read without end"
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize(
    "kind", ["wav", "flac", "mp3", "mp3 no header", "ogg", "m4a", "webm", "caf"]
)
def test_a_pipe_gives_what_the_file_gives(kind: str) -> None:
    data = encode(chirp(48_000, 1.0, 2), 48_000, kind)
    expected = load_audio(data).samples
    np.testing.assert_array_equal(load_audio(Pipe(data)).samples, expected)


def test_an_endless_pipe_is_left_after_max_seconds() -> None:
    header = bytearray(encode(np.zeros((0, 1)), 16_000, "wav"))
    header[-4:] = b"\xff" * 4
    pipe = Pipe(bytes(header), more=lambda count: bytes(count))
    assert "lasts more than that; expected at most 5 s" in refused(pipe, max_seconds=5)
    assert pipe.taken < 1 << 20
    frames = encode(chirp(16_000, 1.0), 16_000, "mp3 no header")
    pipe = Pipe(b"", more=lambda count: (frames * 9)[:count])
    assert "at most 5 s" in refused(pipe, max_seconds=5)


def test_endless_noise_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from palscope.audio import _byte_source as byte_source

    monkeypatch.setattr(byte_source, "_MOST_WITHOUT_SOUND", 1 << 24)
    sound = encode(chirp(16_000, 1.0), 16_000, "mp3 no header")
    for start in (b"", sound):
        assert "uploaded bytes" in refused(Pipe(start, more=lambda count: bytes(count)))
    assert "/dev/zero" in refused("/dev/zero")


def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = encode(chirp(16_000, 0.5), 16_000, "flac")
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    assert load_audio(path).seconds == 0.5
    writer.join()


class Odd(io.BytesIO):
    """A file object whose `read` is not what it should be."""

    def __init__(self, data: bytes, read: Callable[[bytes], Any]) -> None:
        super().__init__(data)
        self._odd = read

    def read(self, size: int | None = -1, /) -> Any:
        return self._odd(super().read(size))


def _fails(_: bytes) -> bytes:
    raise ConnectionError("the line is cut")


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (_fails, "the line is cut"),
        (lambda data: data.decode("latin1"), "binary mode"),
        (lambda _: None, "NoneType"),
        (lambda data: data * 40, "asked for"),
    ],
)
def test_file_objects_that_do_not_read_bytes(read: Callable[[bytes], Any], says: str) -> None:
    assert says in refused(Odd(encode(chirp(16_000, 0.2), 16_000, "wav"), read))


def test_what_cannot_be_a_sound_file_is_said(tmp_path: Path) -> None:
    text = tmp_path / "text.mp3"
    text.write_text("a text is no sound\n" * 500)
    playlist = tmp_path / "list.mp3"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{text}\n#EXT-X-ENDLIST\n")
    script = tmp_path / "ffconcat.wav"
    script.write_text(f"ffconcat version 1.0\nfile '{text}'\n")
    for path in (text, playlist, script):
        assert str(path) in refused(path)
    assert "cannot be read" in refused("a" * 5000)
    assert "cannot be read" in refused("a\0b.wav")


def test_threads_read_at_once() -> None:
    files = {kind: encode(chirp(16_000, 0.5), 16_000, kind) for kind in ("flac", "mp3", "ogg")}
    broken = {kind: data[: len(data) // 2] for kind, data in files.items()}
    expected = {kind: load_audio(data).samples for kind, data in files.items()}
    wrong: list[str] = []

    def read(kind: str) -> None:
        for _ in range(4):
            if not np.array_equal(load_audio(files[kind]).samples, expected[kind]):
                wrong.append(kind)
            try:
                load_audio(broken[kind])
                wrong.append(f"{kind} cut")
            except (AudioError, AudioWarning):
                pass

    threads = [threading.Thread(target=read, args=(kind,)) for kind in files for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

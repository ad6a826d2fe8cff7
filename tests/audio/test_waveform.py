from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from palscope.audio import Waveform, load_audio
from palscope.audio import _decode as decode_module
from palscope.errors import AudioError


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def encoded(samples: np.ndarray, rate: int, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


class OnlyReadable(io.RawIOBase):
    """A pipe: it can be read once, from start to end."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer) -> int:
        return self._file.readinto(buffer)


# --- what is read right -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-5),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("FLAC", "PCM_24", 1e-5),
        ("AIFF", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_formats_and_widths(form: str, subtype: str, tolerance: float):
    samples = tone(16_000)
    loaded = load_audio(encoded(samples, 16_000, form, subtype))
    assert loaded.samples.dtype == np.float32
    # FFmpeg ends Vorbis on a whole block.
    assert loaded.seconds == pytest.approx(0.5, abs=0.02 if subtype == "VORBIS" else 1e-6)
    np.testing.assert_allclose(loaded.samples[500:7500], samples[500:7500], atol=tolerance)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_gives_the_same_sound(rate: int):
    loaded = load_audio(encoded(tone(rate), rate, subtype="FLOAT"))
    assert loaded.sample_rate == 16_000
    assert len(loaded.samples) == pytest.approx(8_000, abs=1)
    expected = tone(16_000)
    np.testing.assert_allclose(loaded.samples[200:7800], expected[200:7800], atol=2e-3)


def test_a_click_stays_at_its_second():
    samples = np.zeros(44_100 * 2)
    samples[44_100] = 1.0
    loaded = load_audio(encoded(samples, 44_100, subtype="FLOAT"))
    assert abs(int(np.abs(loaded.samples).argmax()) - 16_000) <= 1


def test_channels_are_averaged():
    channels = np.stack([tone(16_000), np.zeros(8_000), 2 * tone(16_000)], axis=1)
    loaded = load_audio(encoded(channels, 16_000, subtype="FLOAT"))
    np.testing.assert_allclose(loaded.samples, tone(16_000), atol=1e-6)


def test_many_channels():
    channels = np.tile(tone(48_000, 0.1)[:, None], (1, 64))
    loaded = load_audio(encoded(channels, 48_000))
    assert loaded.samples.shape == (1600,)
    assert np.abs(loaded.samples).max() == pytest.approx(0.4, abs=0.01)


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch):
    samples = np.random.default_rng(0).normal(0, 0.1, 30_011).astype(np.float32)
    file = encoded(samples, 44_100, subtype="FLOAT")
    monkeypatch.setattr(decode_module, "_BLOCK_VALUES", 997)
    expected = soxr.resample(samples, 44_100, 16_000)
    np.testing.assert_allclose(load_audio(file).samples, expected, atol=1e-6)
    # A length of whole blocks ends with an empty one.
    monkeypatch.setattr(decode_module, "_BLOCK_VALUES", 30_011)
    np.testing.assert_allclose(load_audio(file).samples, expected, atol=1e-6)


def test_every_source_gives_the_same_waveform(tmp_path: Path):
    data = encoded(tone(22_050), 22_050, subtype="FLOAT")
    path = tmp_path / "tone.wav"
    path.write_bytes(data)
    expected = load_audio(path)
    read_to_its_end = io.BytesIO(data)
    read_to_its_end.read()
    array = tone(22_050).astype(np.float32)
    sources: list[Any] = [str(path), data, io.BytesIO(data), read_to_its_end, OnlyReadable(data)]
    for source in sources:
        np.testing.assert_array_equal(load_audio(source).samples, expected.samples)
    from_array = load_audio(array, native_rate=22_050)
    np.testing.assert_allclose(from_array.samples, expected.samples, atol=1e-6)
    whole = load_audio(path, sample_rate=22_050)
    np.testing.assert_allclose(load_audio(whole).samples, expected.samples, atol=1e-6)
    assert load_audio(whole).source == str(path)


def test_an_upload_is_named(tmp_path: Path):
    file = io.BytesIO(encoded(tone(16_000), 16_000))
    file.name = "dog.wav"
    assert load_audio(file).source == "dog.wav"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([0, 16384, -32768], np.int16), [0, 0.5, -1]),
        (np.array([0, 2**30, -(2**31)], np.int32), [0, 0.5, -1]),
        (np.array([128, 192, 0], np.uint8), [0, 0.5, -1]),
        (np.array([0, 0.5, -1], np.float64), [0, 0.5, -1]),
        (np.array([0, 0.5, -1], np.float16), [0, 0.5, -1]),
        (np.array([[0, 0], [1, 0], [-1, -1]], np.float32), [0, 0.5, -1]),
    ],
)
def test_arrays_by_type(array: np.ndarray, expected: list[float]):
    loaded = load_audio(array, native_rate=16_000)
    np.testing.assert_array_equal(loaded.samples, np.array(expected, np.float32))


def test_silence_and_clipping_are_kept():
    assert not load_audio(encoded(np.zeros(800), 16_000)).samples.any()
    loud = np.array([3.0, -2.5, 0.0] * 100, np.float32)
    np.testing.assert_array_equal(load_audio(encoded(loud, 16_000, subtype="FLOAT")).samples, loud)
    clipped = load_audio(encoded(np.clip(loud, -1, 1), 16_000))
    assert np.abs(clipped.samples).max() <= 1


def test_one_sample_is_a_sound():
    assert load_audio(np.ones(1, np.float32), native_rate=16_000).samples.shape == (1,)


# --- what is refused ----------------------------------------------------------------------------


def refused(source, **options) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(source, **options)
    return str(caught.value)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3", "AIFF"])
@pytest.mark.parametrize("left", [0.5, 0.05])
def test_a_file_cut_short(form: str, left: float):
    subtype = "MPEG_LAYER_III" if form == "MP3" else "PCM_16"
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
    data = encoded(noise, 16_000, form, subtype)
    assert "uploaded bytes" in refused(data[: int(len(data) * left)])


def test_a_recording_whose_header_was_never_finished_is_read():
    data = bytearray(encoded(tone(16_000), 16_000))
    at = data.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"):
        data[at : at + 4] = size
        assert load_audio(bytes(data)).seconds == pytest.approx(0.5)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"not a sound at all" * 50])
def test_bytes_that_are_no_sound(data: bytes):
    message = refused(data)
    assert "uploaded bytes" in message
    assert "WAV" in message


def test_garbage_behind_a_good_header():
    data = encoded(tone(16_000), 16_000, "FLAC")
    noise = np.random.default_rng(0).integers(0, 256, len(data) - 200, dtype=np.uint8)
    assert "uploaded bytes" in refused(data[:200] + noise.tobytes())


def test_a_pickle_is_not_opened(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    path = tmp_path / "clip.npy"
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    assert str(path) in refused(path)
    assert "uploaded bytes" in refused(pickle.dumps(Bomb()))


def test_missing_files_and_folders(tmp_path: Path):
    assert "does not exist" in refused(tmp_path / "nothing.wav")
    assert "is a folder" in refused(tmp_path)


def test_no_samples():
    assert "no sound" in refused(encoded(np.zeros(0), 16_000))
    assert "no sound" in refused(np.zeros(0, np.float32), native_rate=16_000)
    # One sample at 192 kHz is less than one at 16 kHz.
    assert "shorter than one sample" in refused(np.ones(1, np.float32), native_rate=192_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_not_finite(bad: float, channels: int):
    samples = np.zeros((48_000, channels), np.float32)
    samples[40_000] = bad
    assert "NaN or infinite" in refused(encoded(samples, 48_000, subtype="FLOAT"))
    assert "NaN or infinite" in refused(samples, native_rate=48_000)


def test_infinities_that_cancel_are_not_missed():
    samples = np.zeros((100, 2), np.float32)
    samples[50] = np.inf, -np.inf
    assert "NaN or infinite" in refused(samples, native_rate=16_000)
    assert "NaN or infinite" in refused(np.array([1e300, 0]), native_rate=16_000)


def test_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    data = encoded(tone(16_000, 2.0), 16_000)
    assert load_audio(data, max_seconds=2.0).seconds == 2.0
    monkeypatch.setattr(decode_module, "_Blocks", None)  # decoding would fail
    assert "at most 1.5 s" in refused(data, max_seconds=1.5)
    assert "at most 1.5 s" in refused(np.zeros(32_000), native_rate=16_000, max_seconds=1.5)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 100), np.float32), "Transpose"),
        (np.zeros((4, 3, 2), np.float32), "shape"),
        (np.float32(0), "shape"),
        (np.zeros(10, bool), "type bool"),
        (np.zeros(10, complex), "type complex"),
        (np.array(["a"] * 10), "type <U1"),
    ],
)
def test_arrays_that_are_no_sound(array: np.ndarray, says: str):
    assert says in refused(np.asarray(array), native_rate=16_000)


def test_rates_must_be_given_once_and_be_rates():
    assert "native_rate" in refused(np.zeros(10, np.float32))
    assert "44.1" not in refused(np.zeros(10, np.float32), native_rate=44)
    assert "sample_rate is 0" in refused(encoded(tone(16_000), 16_000), sample_rate=0)
    assert "brings its own" in refused(encoded(tone(16_000), 16_000), native_rate=16_000)


def test_a_waveform_shows_itself_in_a_notebook():
    waveform = Waveform(tone(16_000, 90.0).astype(np.float32), 16_000, "folder/<b>long.wav")
    page = waveform._repr_html_()
    assert "data:audio/wav;base64," in page
    assert "data:image/png;base64," in page
    assert "<div>&lt;b&gt;long.wav: 90.00 s" in page
    assert "first 60 s" in page
    assert len(page) < 5_000_000

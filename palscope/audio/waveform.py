"""Waveforms in: any file, upload or array becomes mono float32 samples at the rate asked for."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from palscope.audio.given import check_rate, plain_sound
from palscope.errors import AudioError

# Rates outside are no sound rates: a damaged header, or seconds given for hertz.
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000
# Decoded values held at once, over all channels: 32 MB of float32.
_BLOCK_VALUES = 8_000_000
_FORMATS = "WAV, FLAC, Ogg (Vorbis or Opus), MP3 or AIFF"


@dataclass(frozen=True, eq=False)
class Waveform:
    """Mono sound.

    `samples`: `Float[np.ndarray, "samples"]`, float32, full scale ±1 (float files may exceed it,
    and are kept as they are); `sample_rate` in Hz; `source` names where the sound came from.

    Raises `AudioError` for samples that are not finite.
    """

    samples: Float[np.ndarray, " samples"] = field(repr=False)
    sample_rate: int
    source: str

    def __post_init__(self) -> None:
        # Whoever makes sound ends here: resampling and mixing can overflow, too.
        _check_finite(np.asarray(self.samples), self.source)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate

    def _repr_html_(self) -> str:
        from palscope.audio.display import waveform_html

        return waveform_html(self)


def load_audio(
    source: str | PathLike[str] | bytes | BinaryIO | np.ndarray | Waveform,
    *,
    sample_rate: int = 16_000,
    native_rate: int | None = None,
    max_seconds: float | None = None,
) -> Waveform:
    """Read sound from a path, the bytes of a file, an open binary file, an array or a `Waveform`.

    A tensor or a list of floats is taken as an array, `(array, rate)` and a cell of `datasets` as
    what they hold.

    Channels are averaged, then resampled (soxr, high quality) to `sample_rate` Hz, block by block,
    so memory grows with the result and not with the file. Integer samples are scaled to ±1; float
    samples keep their values, beyond ±1 too.

    `native_rate` (Hz) is needed for arrays, and only there: `[samples]` or `[samples, channels]`.
    `max_seconds` refuses longer sound, where possible before it is decoded.

    Raises `AudioError`, naming the source, when the sound is missing, unreadable, of unknown
    format, cut short, empty, too long, or holds NaN or infinite samples. (An Ogg file states no
    length, so one that is cut short plays to its last whole page.)
    """
    _check_rate(sample_rate, "sample_rate")
    source, native_rate = plain_sound(source, native_rate)
    if isinstance(source, np.ndarray):
        if native_rate is None:
            raise AudioError("An array of samples has no sample rate: give native_rate in Hz.")
        _check_rate(native_rate, "native_rate")
        return _from_array(source, native_rate, sample_rate, "array", max_seconds)
    if native_rate is not None:
        raise AudioError("native_rate is for arrays; a file or waveform brings its own rate.")
    if isinstance(source, Waveform):
        return _from_array(
            np.asarray(source.samples), source.sample_rate, sample_rate, source.source, max_seconds
        )
    if isinstance(source, bytes):
        return _from_file(io.BytesIO(source), "uploaded bytes", sample_rate, max_seconds)
    if isinstance(source, (str, PathLike)):
        path = Path(source)
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            raise AudioError(f"{path} {kind}; expected a sound file ({_FORMATS}).")
        try:
            with path.open("rb") as file:
                return _from_file(file, str(path), sample_rate, max_seconds)
        except OSError as error:
            raise AudioError(f"{path} cannot be read: {error.strerror or error}.") from error
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "") or "uploaded bytes")
        return _from_file(source, name, sample_rate, max_seconds)
    raise AudioError(
        f"A {type(source).__name__} is no sound; expected a path, the bytes of a sound file, "
        "an open binary file, a numpy array with native_rate, or a Waveform."
    )


def check_samples(samples: np.ndarray, source: str) -> Float[np.ndarray, " samples"]:
    """Return `samples` if they are mono, not empty and finite; else raise, naming `source`."""
    if samples.ndim != 1:
        raise AudioError(f"{source}: shape {samples.shape}; expected mono sound, one axis.")
    if len(samples) == 0:
        raise AudioError(f"{source} holds no samples; expected a sound that lasts.")
    _check_finite(samples, source)
    return samples


def _check_finite(samples: np.ndarray, source: str) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(
            f"{source} holds NaN or infinite samples; expected finite ones. "
            "Export the sound again, or replace them, for example by np.nan_to_num."
        )


def _from_array(
    array: np.ndarray, native_rate: int, sample_rate: int, source: str, max_seconds: float | None
) -> Waveform:
    if array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise AudioError(
            f"{source}: shape {array.shape} has more channels than samples; "
            "expected [samples] or [samples, channels]. Transpose it."
        )
    if array.ndim not in (1, 2):
        raise AudioError(
            f"{source}: shape {array.shape}; expected [samples] or [samples, channels]."
        )
    _check_length(array.shape[0], native_rate, source, max_seconds)
    mono = _mono(_to_float(array, source), source)
    if native_rate != sample_rate:
        mono = np.asarray(soxr.resample(mono, native_rate, sample_rate), dtype=np.float32)
    return Waveform(_not_empty(mono, source), sample_rate, source)


def _to_float(array: np.ndarray, source: str) -> np.ndarray:
    """Integers scaled by their type's full scale, floats kept."""
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # becomes infinite, which is refused next
            return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:  # WAV's only unsigned width, silent at 128
        return (array.astype(np.float32) - 128) / 128
    if np.issubdtype(array.dtype, np.signedinteger):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    raise AudioError(f"{source}: samples of type {array.dtype}; expected floats or integers.")


def _mono(samples: np.ndarray, source: str) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # not finite: refused next
        mono = samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)
    return check_samples(mono, source) if len(mono) else mono  # a file's last block may be empty


def _from_file(
    file: BinaryIO, source: str, sample_rate: int, max_seconds: float | None
) -> Waveform:
    if file.seekable():
        file.seek(0)  # an upload shown twice has been read to its end
    else:
        file = io.BytesIO(file.read())
    try:
        with soundfile.SoundFile(file) as sound:
            return _decode(sound, source, sample_rate, max_seconds)
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(
            f"{source} cannot be read as sound ({reason}); expected {_FORMATS}. "
            "Check that the file is whole, or convert it to WAV."
        ) from error


def _decode(
    sound: soundfile.SoundFile, source: str, sample_rate: int, max_seconds: float | None
) -> Waveform:
    native_rate, announced = int(sound.samplerate), int(sound.frames)
    _check_rate(native_rate, f"the sample rate of {source}")
    _check_whole(sound, source)
    _check_length(announced, native_rate, source, max_seconds)

    stream = (
        soxr.ResampleStream(native_rate, sample_rate, 1, dtype="float32")
        if native_rate != sample_rate
        else None
    )
    blocks: list[np.ndarray] = []
    decoded = 0
    block_frames = max(1, _BLOCK_VALUES // sound.channels)
    while True:
        block = cast(Any, sound.read)(block_frames, dtype="float32", always_2d=True)
        decoded += len(block)
        last = len(block) < block_frames
        mono = _mono(block, source)
        blocks.append(mono if stream is None else stream.resample_chunk(mono, last=last))
        if last:
            break
    if decoded < announced:
        raise AudioError(
            f"{source} is cut short: {decoded} of {announced} samples could be read. "
            "Fetch or export the file again."
        )
    return Waveform(_not_empty(np.concatenate(blocks), source), sample_rate, source)


def _check_whole(sound: soundfile.SoundFile, source: str) -> None:
    """Refuse a WAV or AIFF file that ends before the samples its header announces.

    libsndfile plays what there is and tells of the rest in its log only.
    """
    for announced, found in re.findall(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", _log(sound)):
        # A recorder that could not seek back leaves the largest number there, nearly 2 or 4 GB;
        # a few bytes less are a slip of the writer.
        if int(announced) < 0x7F000000 and int(found) < 0.99 * int(announced):
            raise AudioError(
                f"{source} is cut short: {found} of {announced} bytes of sound are there. "
                "Fetch or export the file again."
            )


def _log(sound: soundfile.SoundFile) -> str:
    return str(cast(Any, sound).extra_info)


def _not_empty(samples: np.ndarray, source: str) -> np.ndarray:
    if len(samples) == 0:
        raise AudioError(
            f"{source} holds no sound (it is empty or shorter than one sample); "
            "expected a sound that lasts."
        )
    return samples


def _check_rate(rate: Any, name: str) -> None:
    check_rate(rate, name, _LOWEST_RATE, _HIGHEST_RATE)


def _check_length(frames: int, rate: int, source: str, max_seconds: float | None) -> None:
    if max_seconds is not None and not max_seconds > 0:
        raise AudioError(f"max_seconds is {max_seconds}; expected seconds above 0, or None.")
    if max_seconds is not None and frames > max_seconds * rate:
        raise AudioError(
            f"{source} lasts {frames / rate:.1f} s; expected at most {max_seconds:g} s. "
            "Cut it, or raise max_seconds."
        )

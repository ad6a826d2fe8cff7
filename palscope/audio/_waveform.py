"""Waveforms in: any file, upload or array becomes mono float32 samples at the rate asked for."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr
from jaxtyping import Float

from palscope.audio._decode import FORMATS, decode
from palscope.audio._given import check_rate, plain_sound
from palscope.audio._mixing import Mixer, check_finite_samples
from palscope.errors import AudioError

# Rates outside are no sound rates: a damaged header, or seconds given for hertz.
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000

Samples = Float[np.ndarray, " samples"]
"""Mono sound at a known rate."""


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
        check_finite_samples(np.asarray(self.samples), self.source)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate

    def _repr_html_(self) -> str:
        from palscope.audio._display import waveform_html

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
    `max_seconds` refuses longer sound: at once where the file states its length, else as soon as so
    much is decoded, so that an endless pipe is left.

    Files are decoded by FFmpeg, see `palscope.audio._decode.decode`: known by their content, not by
    their name.

    Raises:
        AudioError: the sound is missing, unreadable, of unknown format, damaged or cut short (as
            far as the file or FFmpeg tells), empty, too long, holds NaN or infinite samples, float
            samples on the scale of integers, or channels that cancel each other. Names the source.

    Warns:
        AudioWarning: channels cancel each other in parts, the file holds several sound tracks, or
            its end is odd though no sound is known to be lost.
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
        with _opened(Path(source)) as file:
            return _from_file(file, str(source), sample_rate, max_seconds)
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "") or "uploaded bytes")
        return _from_file(source, name, sample_rate, max_seconds)
    raise AudioError(
        f"A {type(source).__name__} is no sound; expected a path, the bytes of a sound file, "
        "an open binary file, a numpy array with native_rate, or a Waveform."
    )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except IsADirectoryError as error:
        raise AudioError(f"{path} is a folder; expected a sound file ({FORMATS}).") from error
    except FileNotFoundError as error:
        raise AudioError(f"{path} does not exist; expected a sound file ({FORMATS}).") from error
    except (OSError, ValueError) as error:  # no right to; a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path} cannot be read: {reason}.") from error


def check_samples(samples: np.ndarray, source: str) -> Float[np.ndarray, " samples"]:
    """Return `samples` if they are mono, not empty and finite; else raise, naming `source`."""
    if samples.ndim != 1:
        raise AudioError(f"{source}: shape {samples.shape}; expected mono sound, one axis.")
    if len(samples) == 0:
        raise AudioError(f"{source} holds no samples; expected a sound that lasts.")
    check_finite_samples(samples, source)
    return samples


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
    if array.dtype.kind == "i" and array.dtype.itemsize > 2 and array.size:
        peak = max(abs(int(array.min())), abs(int(array.max())))
        if array.dtype.itemsize == 8 or 0 < peak <= 1 << 15:
            raise AudioError(
                f"{source}: {array.dtype} samples that reach {peak}; no sound is stored so. If "
                "they came from 16 bits, give int16."
            )
    mixer = Mixer(source)
    # torch takes no view that goes backwards.
    mono = np.ascontiguousarray(mixer.mix(array, native_rate))
    mixer.check()
    if native_rate != sample_rate:
        mono = np.asarray(soxr.resample(mono, native_rate, sample_rate), dtype=np.float32)
    return Waveform(_not_empty(mono, source), sample_rate, source)


def _from_file(
    file: BinaryIO, source: str, sample_rate: int, max_seconds: float | None
) -> Waveform:
    _check_length(0, 1, source, max_seconds)
    mixer, resampler = Mixer(source), _Resampler(sample_rate, source)
    decode(
        file, source, lambda block, rate: resampler.add(mixer.mix(block, rate), rate), max_seconds
    )
    samples = resampler.finish()
    mixer.check()
    return Waveform(_not_empty(samples, source), sample_rate, source)


class _Resampler:
    """Blocks of mono sound at one rate; each stretch of another native rate by itself."""

    def __init__(self, sample_rate: int, source: str) -> None:
        self._to = sample_rate
        self._source = source
        self._blocks: list[np.ndarray] = []
        self._native: int | None = None
        self._stream: soxr.ResampleStream | None = None

    def add(self, mono: np.ndarray, native_rate: int) -> None:
        if native_rate != self._native:
            _check_rate(native_rate, f"the sample rate of {self._source}")
            self._flush()
            self._native = native_rate
            if native_rate != self._to:
                self._stream = soxr.ResampleStream(native_rate, self._to, 1, dtype="float32")
        self._blocks.append(mono if self._stream is None else self._stream.resample_chunk(mono))

    def finish(self) -> np.ndarray:
        self._flush()
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.float32)

    def _flush(self) -> None:
        if self._stream is not None:
            empty = np.zeros(0, np.float32)
            self._blocks.append(self._stream.resample_chunk(empty, last=True))
        self._stream = None


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

"""Channels become one; a scale or a phase that makes another sound of them is told."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from palscope.audio import _told
from palscope.errors import AudioError

# Full scale is 1. Floats may exceed it (a mix before mastering), but not by 24 dB.
_LOUDEST = 16.0
# Channels cancel where their mean has less than this share of their energy, over their number:
# independent ones leave 1 / channels, two of correlation -0.9 leave 0.05.
_CANCELLED = 0.1
_WINDOW_S = 0.5
# Sound is clipped where three samples in a row stand at full scale; fewer places are not heard.
_CLIPPED = 10
_SILENT = 1e-3  # of full scale, -60 dB
# Stretches quieter than this share of the mean energy, or shorter, are not looked at.
_QUIET, _SHORTEST_S = 1e-3, 0.1


class Mixer:
    """Averages the channels of one source, block by block, and judges it at the end.

    All channels count alike, the bass channel of surround sound too. A constant offset, clipping
    and quiet sound are left as they are; who listens by `told` hears of clipping and silence.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._floats = False
        self._peak = 0.0  # of floats
        self._loudest = 0.0  # of the mean
        self._clipped, self._clipped_s, self._clipped_at = 0, 0.0, 0.0
        self._whole_numbers = True
        self._seconds = 0.0
        # A row a window: start in s, length in s, energy of the channels, of their mean, channels.
        self._windows: list[np.ndarray] = []

    def mix(self, block: np.ndarray, rate: int) -> Float[np.ndarray, " samples"]:
        """Mono float32 of `[samples]` or `[samples, channels]`.

        Integers are scaled by their type's full scale, floats kept. Raises `AudioError` for other
        types, and for samples that are not finite.
        """
        floats = _to_float(block, self._source)
        with np.errstate(invalid="ignore", over="ignore"):  # not finite: refused next
            mono = floats if floats.ndim == 1 else floats.mean(axis=1, dtype=np.float32)
        check_finite_samples(mono, self._source)
        if np.issubdtype(block.dtype, np.floating) and block.size:
            self._floats = True
            self._peak = max(self._peak, float(np.abs(floats).max()))
            self._whole_numbers &= bool((floats == np.rint(floats)).all())
        self._look_for_clipping(floats, _full_scale(block.dtype), rate)
        self._loudest = max(self._loudest, float(np.abs(mono).max(initial=0)))
        if floats.ndim == 2 and floats.shape[1] > 1 and len(floats):
            self._windows.append(_energies(floats, mono, rate, self._seconds))
        self._seconds += len(mono) / rate
        return mono

    def check(self) -> None:
        """After the last block.

        Raises:
            AudioError: float samples far beyond full scale, as 16-bit integers held as floats are;
                or channels that cancel each other all along.

        Warns:
            AudioWarning: channels that cancel each other in parts.
        """
        if self._peak > _LOUDEST or (self._peak >= 2 and self._whole_numbers):
            raise AudioError(
                f"{self._source}: float samples reach {self._peak:g}, but full scale is 1: they "
                "look like integers held as floats. Divide them by the integers' full scale (32768 "
                "for 16 bits), or give integers."
            )
        self._tell_level()
        if not self._windows:
            return
        start, seconds, channels, mean, count = np.concatenate(self._windows).T
        least = _CANCELLED / count * channels
        if channels.sum() > 0 and mean.sum() < least.sum():
            raise AudioError(
                f"{self._source}: its channels are of opposite phase and cancel each other, so "
                "that their mean is next to silence. Turn one around (times -1), or give one alone."
            )
        loud = channels / seconds > _QUIET * channels.sum() / seconds.sum()
        cancelled = (mean < least) & loud & (seconds >= _SHORTEST_S)
        if cancelled.any():
            _told.warn(
                f"{self._source}: its channels are of opposite phase and cancel each other in "
                f"{seconds[cancelled].sum():.1f} s, first at {start[cancelled][0]:.1f} s: their "
                "mean is next to silence there."
            )

    def _tell_level(self) -> None:
        if self._loudest == 0:
            _told.note(f"{self._source} is silent: all of its samples are 0.")
        elif self._loudest < _SILENT:
            _told.note(
                f"{self._source} is next to silent: its loudest sample is "
                f"{-20 * np.log10(self._loudest):.0f} dB below full scale."
            )
        if self._clipped >= _CLIPPED:
            # Floats may go on beyond full scale, and those of MP3 and its like do where it was cut.
            how, what = (
                ("reaches full scale", "it may be clipped, and is in 16 bits")
                if self._floats
                else ("is clipped", "what was louder is cut off")
            )
            _told.note(
                f"{self._source} {how} for {1000 * self._clipped_s:.1f} ms in all, first at "
                f"{self._clipped_at:.2f} s: {what}."
            )

    def _look_for_clipping(self, floats: np.ndarray, full: float, rate: int) -> None:
        at_full: Any = np.abs(floats) >= full
        if at_full.ndim == 2:
            at_full = at_full.any(axis=1)
        in_a_row = (at_full[2:] & at_full[1:-1] & at_full[:-2]).nonzero()[0]
        if len(in_a_row) and not self._clipped:
            self._clipped_at = self._seconds + float(in_a_row[0]) / rate
        self._clipped += len(in_a_row)
        self._clipped_s += len(in_a_row) / rate


def check_finite_samples(samples: np.ndarray, source: str) -> None:
    """Raise `AudioError`, naming `source`, for NaN or infinite samples."""
    if not np.isfinite(samples).all():
        raise AudioError(
            f"{source} holds NaN or infinite samples; expected finite ones. "
            "Export the sound again, or replace them, for example by np.nan_to_num."
        )


def _energies(block: np.ndarray, mono: np.ndarray, rate: int, start: float) -> np.ndarray:
    """`[windows, 5]`, see `Mixer`; each channel without its constant part, which never cancels."""
    size = max(1, round(_WINDOW_S * rate))
    edges = np.arange(0, len(block), size)
    lengths = np.diff(np.append(edges, len(block)))
    with np.errstate(over="ignore"):
        channels = np.square(block - block.mean(axis=0), dtype=np.float64).mean(axis=1)
        mean = np.square(mono - mono.mean(), dtype=np.float64)
    return np.stack(
        [
            start + edges / rate,
            lengths / rate,
            np.add.reduceat(channels, edges),
            np.add.reduceat(mean, edges),
            np.full(len(edges), block.shape[1]),
        ],
        axis=1,
    )


def _full_scale(dtype: np.dtype[Any]) -> float:
    """The largest sample of a type; of wide ones and floats that of 16 bits, which most were."""
    whole = np.issubdtype(dtype, np.integer)
    return 1 - 2.0 ** (1 - min(8 * dtype.itemsize, 16) if whole else -15)


def _to_float(array: np.ndarray, source: str) -> np.ndarray:
    """Integers scaled by their type's full scale, floats kept."""
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore", invalid="ignore"):  # not finite: refused next
            return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:  # WAV's only unsigned width, silent at 128
        return (array.astype(np.float32) - 128) / 128
    if np.issubdtype(array.dtype, np.signedinteger):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    raise AudioError(f"{source}: samples of type {array.dtype}; expected floats or integers.")

"""Channels become one; a scale or a phase that makes another sound of them is told."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float

from palscope.errors import AudioError, AudioWarning

# Full scale is 1. Floats may exceed it (a mix before mastering), but not by 24 dB.
_LOUDEST = 16.0
# Channels cancel where their mean has less than this share of their energy, over their number:
# independent ones leave 1 / channels, two of correlation -0.9 leave 0.05.
_CANCELLED = 0.1
_WINDOW_S = 0.5
# Stretches quieter than this share of the mean energy, or shorter, are not looked at.
_QUIET, _SHORTEST_S = 1e-3, 0.1


class Mixer:
    """Averages the channels of one source, block by block, and judges it at the end.

    All channels count alike, the bass channel of surround sound too. A constant offset, clipping
    and quiet sound are left as they are.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._peak = 0.0
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
            self._peak = max(self._peak, float(np.abs(floats).max()))
            self._whole_numbers &= bool((floats == np.rint(floats)).all())
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
            warnings.warn(
                f"{self._source}: its channels are of opposite phase and cancel each other in "
                f"{seconds[cancelled].sum():.1f} s, first at {start[cancelled][0]:.1f} s: their "
                "mean is next to silence there.",
                AudioWarning,
                stacklevel=2,
            )


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

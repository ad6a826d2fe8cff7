"""Edits of the sound itself: input patching, which no spread inside an encoder escapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from palscope.audio import Waveform
from palscope.audio._waveform import Samples
from palscope.errors import AudioError
from palscope.interventions._address import Sound


def edit_waveform(
    waveform: Waveform, where: Sound, edit: Callable[[Samples], Samples] | Waveform
) -> Waveform:
    """`waveform` with the samples of `where` replaced.

    Args:
        where: seconds; its stream must be left out, for sound has none.
        edit: makes the new samples of the old ones (`np.zeros_like` for silence), or another
            waveform of the same sample rate, whose samples of the same seconds are taken.

    Raises:
        AudioError: the stretch lies outside of the clip, or the new samples do not fit.
    """
    rate, samples = waveform.sample_rate, waveform.samples
    if where.stream is not None or where.clip != 0:
        raise AudioError("a waveform has no streams and no other clips; give seconds alone.")
    first = round(where.start * rate)
    last = len(samples) if where.end is None else round(where.end * rate)
    if not 0 <= first < last <= len(samples):
        raise AudioError(
            f"{where.start:.3f} s to {last / rate:.3f} s lies outside of {waveform.source}, which "
            f"is {len(samples) / rate:.3f} s long."
        )
    old = samples[first:last]
    if isinstance(edit, Waveform):
        if edit.sample_rate != rate or len(edit.samples) < last:
            raise AudioError(
                f"the other waveform has {len(edit.samples)} samples at {edit.sample_rate} Hz; "
                f"{last} at {rate} Hz are needed."
            )
        new = edit.samples[first:last]
    else:
        new = np.asarray(edit(old), dtype=np.float32)
    if new.shape != old.shape or not np.isfinite(new).all():
        raise AudioError(
            f"the edit made {new.shape} of {old.shape} samples, or some are not finite."
        )
    edited = np.array(samples, dtype=np.float32)
    edited[first:last] = new
    return Waveform(edited, rate, waveform.source)

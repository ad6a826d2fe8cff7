"""A clean and a corrupt clip that differ in one thing, the material of activation patching."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from palscope.audio import Waveform
from palscope.audio._compose import SAMPLE_RATE, level
from palscope.audio._timegrid import TOUCH_S
from palscope.audio._waveform import check_samples
from palscope.errors import AudioError, PalscopeError

SELF = "self"
"""The kind of a pair whose two clips are the same: patching between them must change nothing."""


@dataclass(frozen=True)
class Segment:
    """A slot of time, the same samples in both clips of a pair.

    `name` is its role ("first digit", "silence", "note 2"), the same over all pairs of a kind, so
    that effects can be averaged by it; `start` and `end` are in seconds. `differs` says whether the
    pair's two clips are meant to differ there.
    """

    name: str
    start: float
    end: float
    differs: bool

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end < math.inf:
            raise AudioError(
                f"segment {self.name!r}: {self.start:g} to {self.end:g} s is no stretch of time; "
                "expected 0 <= start < end."
            )

    @property
    def slice(self) -> slice:
        """The samples, at 16 kHz, that lie within."""
        return slice(round(self.start * SAMPLE_RATE), round(self.end * SAMPLE_RATE))


@dataclass(frozen=True, eq=False)
class Pair:
    """Two clips of the same length, a question, and the answer that each of them calls for.

    Both clips have the same number of samples at 16 kHz, so the same number of tokens in every
    encoder. How well they are matched in level is for `matched` to say.

    Args:
        name: unique within a set, and safe as a file name.
        kind: what was swapped (`digit`, `first_digit`, `sound_order`, …) or the control that the
            corrupt clip is (`silence`, `noise`, `shuffled`, `other clip`, `self`).
        question: what both clips are asked.
        clean: the clip whose answer is `clean_answer`.
        corrupt: the clip that it is compared with.
        clean_answer: the right answer about the clean clip.
        corrupt_answer: the right answer about the corrupt clip; None where it is unknown, or is the
            clean one's (another speaker, the controls).
        segments: in order of time, together the whole clip.
        changes: what was done to given sounds to match them, in sentences; empty for made ones.

    Raises:
        AudioError: a clip is empty, not mono, not finite or not at 16 kHz; the two are not equally
            long, or identical though the kind is not `self`; or the segments leave a gap, overlap,
            or end elsewhere than the clips.
        PalscopeError: no question, no answer, the same answer to both, a name that is no file
            name, or two segments of one name.
    """

    name: str
    kind: str
    question: str
    clean: Waveform
    corrupt: Waveform
    clean_answer: str
    corrupt_answer: str | None
    segments: tuple[Segment, ...]
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_text()
        self._check_clips()
        self._check_segments()

    @property
    def seconds(self) -> float:
        """Duration of either clip, in seconds."""
        return self.clean.seconds

    @property
    def differing(self) -> tuple[Segment, ...]:
        """The segments where the two clips are meant to differ."""
        return tuple(segment for segment in self.segments if segment.differs)

    @property
    def digest(self) -> str:
        """sha256 of all that it is but `changes`, in hexadecimal: what its results follow from."""
        about = (self.name, self.kind, self.question, self.clean_answer, self.corrupt_answer)
        made = hashlib.sha256(repr((about, self.segments)).encode())
        for clip in (self.clean, self.corrupt):
            made.update(clip.samples.tobytes())
        return made.hexdigest()

    def _check_text(self) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*", self.name):
            raise PalscopeError(
                f"pair name {self.name!r}; expected letters, digits, '_', '-' and '.', so that it "
                "can name a file."
            )
        if not self.question.strip() or not self.clean_answer.strip():
            raise PalscopeError(f"pair {self.name}: a question and a clean_answer are needed.")
        if self.corrupt_answer is not None and not self.corrupt_answer.strip():
            raise PalscopeError(f"pair {self.name}: corrupt_answer is empty; give None if unknown.")
        if self.corrupt_answer == self.clean_answer and self.kind != SELF:
            raise PalscopeError(
                f"pair {self.name}: both answers are {self.clean_answer!r}; give corrupt_answer "
                "None where the swap does not change the answer."
            )

    def _check_clips(self) -> None:
        clean, corrupt = self.clean, self.corrupt
        check_samples(clean.samples, f"pair {self.name}, clean clip")
        check_samples(corrupt.samples, f"pair {self.name}, corrupt clip")
        if not clean.sample_rate == corrupt.sample_rate == SAMPLE_RATE:
            raise AudioError(
                f"pair {self.name}: the clips are at {clean.sample_rate} and "
                f"{corrupt.sample_rate} Hz; expected {SAMPLE_RATE} Hz. load_audio resamples."
            )
        if len(clean.samples) != len(corrupt.samples):
            raise AudioError(
                f"pair {self.name}: the clean clip has {len(clean.samples)} samples, the corrupt "
                f"one {len(corrupt.samples)}; expected as many. pair_from_files makes two sounds "
                "equally long."
            )
        same = np.array_equal(clean.samples, corrupt.samples)
        if same != (self.kind == SELF):
            raise AudioError(
                f"pair {self.name}: the two clips are {'identical' if same else 'different'}, but "
                f"the kind is {self.kind!r}; only kind {SELF!r} has, and always, identical clips."
            )

    def _check_segments(self) -> None:
        ends = [0.0, *(segment.end for segment in self.segments)]
        starts = [*(segment.start for segment in self.segments), self.seconds]
        if any(abs(a - b) > TOUCH_S for a, b in zip(ends, starts, strict=True)):
            listed = ", ".join(f"{s.name} {s.start:g}–{s.end:g}" for s in self.segments) or "none"
            raise AudioError(
                f"pair {self.name}: the segments ({listed} s) must follow each other without gap "
                f"or overlap from 0 to {self.seconds:g} s, where the clips end."
            )
        for segment in self.segments:
            if len(self.clean.samples[segment.slice]) == 0:
                raise AudioError(
                    f"pair {self.name}: segment {segment.name!r} holds no sample of the clip; "
                    "give it more time or leave it out."
                )
        names = [segment.name for segment in self.segments]
        if len(set(names)) < len(names):
            raise PalscopeError(f"pair {self.name}: two segments have one name, of {names}.")


def self_pair(pair: Pair) -> Pair:
    """The pair with its clean clip on both sides: the control in which nothing may change."""
    return replace(
        pair,
        name=f"{pair.name}_{SELF}",
        kind=SELF,
        corrupt=pair.clean,
        corrupt_answer=pair.clean_answer,
        segments=tuple(replace(segment, differs=False) for segment in pair.segments),
    )


def rms(samples: Float[np.ndarray, " samples"]) -> float:
    """Root mean square over all samples, silence included; full scale is 1."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def decibels(amplitude: float) -> float:
    """An amplitude in dB relative to full scale (1.0); minus infinity for silence."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def matched(pairs: Iterable[Pair]) -> pd.DataFrame:
    """How well the two clips of each pair are matched: a row for the clip, one for each segment.

    Columns: `pair`, `kind`, `segment` ("clip" for the whole clip), `start_s`, `end_s` (seconds),
    `samples` (of either side), `differs` (meant to), `identical` (sample by sample), `clean_db` and
    `corrupt_db` (RMS over all of the stretch, dB relative to full scale; minus infinity for
    silence), `difference_db` (corrupt less clean), and `sounding_difference_db`, the difference of
    the levels while it sounds (20 ms frames within 30 dB of the loudest, see
    `palscope.audio._compose.level`): it shows where one side is as loud over all but shorter. The
    differences are 0 between two silences and infinite between sound and silence.
    """
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        whole = Segment("clip", 0.0, pair.seconds, bool(pair.differing))
        for part in (whole, *pair.segments):
            clean, corrupt = pair.clean.samples[part.slice], pair.corrupt.samples[part.slice]
            rows.append(
                {
                    "pair": pair.name,
                    "kind": pair.kind,
                    "segment": part.name,
                    "start_s": part.start,
                    "end_s": part.end,
                    "samples": len(clean),
                    "differs": part.differs,
                    "identical": np.array_equal(clean, corrupt),
                    "clean_db": decibels(rms(clean)),
                    "corrupt_db": decibels(rms(corrupt)),
                    "difference_db": _difference(rms(clean), rms(corrupt)),
                    "sounding_difference_db": _difference(level(clean), level(corrupt)),
                }
            )
    return pd.DataFrame(rows)


def _difference(clean: float, corrupt: float) -> float:
    return 0.0 if clean == corrupt else decibels(corrupt) - decibels(clean)

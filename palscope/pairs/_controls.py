"""Controls for a pair: its clean clip against something that holds no other answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
from scipy import signal

from palscope.audio import Waveform
from palscope.audio._compose import SAMPLE_RATE, crop, trim
from palscope.audio._waveform import Samples
from palscope.datasets._manifest import Corpus
from palscope.errors import AudioError, PalscopeError
from palscope.pairs._pair import Pair, Segment, rms, self_pair
from palscope.pairs._swaps import bundled_corpus

Control = Literal["silence", "noise", "shuffled", "other clip", "self"]

BLOCK_S = 0.05
"""Length of the blocks that `shuffled` exchanges, in seconds: shorter than most speech sounds."""

CROSS_FADE_S = 0.005
"""How long neighbouring blocks overlap, in seconds."""

_SPECTRUM_S = 0.016  # window of the long-term spectrum: bins 62.5 Hz apart keep its shape, no pitch
_CLIPS_TRIED = 20

_T = TypeVar("_T")


def control(pair: Pair, how: Control, *, seed: int, corpus: Corpus | None = None) -> Pair:
    """The pair with its corrupt clip replaced by a control; `kind` becomes `how`.

    - `silence`: digital silence.
    - `noise`: Gaussian noise with the long-term spectrum of the clean clip, in each segment at the
      RMS that the clean clip has there. What remains is when it sounds and how loud; silence stays
      silence.
    - `shuffled`: blocks of about `BLOCK_S` of the clean clip in random order, none where it was,
      cross-faded over `CROSS_FADE_S` and brought to the clean clip's RMS. What remains is the sound
      of each moment, so that an instrument may still be known by it.
    - `other clip`: a clip of the corpus with another label than the pair's answers, domains and
      labels drawn evenly, cut to length (or put between silence) and brought to the clean clip's
      RMS. Clips that fill half of the time are preferred.
    - `self`: the clean clip itself, with its answer; patching it in must change nothing.

    But for `self` the corrupt answer is None: there is none, or nobody asks for it. Segments keep
    their times; `differs` says where the samples do.

    Args:
        pair: gives the clean clip, question, answer and segments.
        how: which control.
        seed: of the draws; the pair's name takes part, so that one seed serves a whole set.
        corpus: where `other clip` comes from; None: the bundled clips.

    Raises:
        PalscopeError: an unknown control, or no clip of another label in the corpus.
        AudioError: the clean clip is silent, or (`shuffled`) shorter than two blocks, so that
            nothing could move.
    """
    if how == "self":
        return self_pair(pair)
    if how not in get_args(Control):
        raise PalscopeError(f"no control {how!r}; there are {', '.join(get_args(Control))}.")
    if rms(pair.clean.samples) == 0:
        raise AudioError(f"pair {pair.name}: the clean clip is silent; no control differs from it.")
    rng = np.random.default_rng([seed, *how.encode(), *pair.name.encode()])
    source = f"{how} for {pair.clean.source}"
    if how == "silence":
        samples = np.zeros_like(pair.clean.samples)
    elif how == "noise":
        samples = _noise(pair, rng)
    elif how == "shuffled":
        samples = _shuffled(pair.clean, rng)
    else:
        samples, source = _other_clip(pair, corpus or bundled_corpus(), rng)
    corrupt = Waveform(samples.astype(np.float32), SAMPLE_RATE, source)

    def changed(segment: Segment) -> Segment:
        same = np.array_equal(pair.clean.samples[segment.slice], corrupt.samples[segment.slice])
        return replace(segment, differs=not same)

    return replace(
        pair,
        name=f"{pair.name}_{how.replace(' ', '-')}",
        kind=how,
        corrupt=corrupt,
        corrupt_answer=None,
        segments=tuple(changed(segment) for segment in pair.segments),
    )


def _noise(pair: Pair, rng: np.random.Generator) -> Samples:
    """White noise, filtered by the clip's mean spectrum (Welch's method), levelled by segment."""
    clean = pair.clean.samples
    window = min(round(_SPECTRUM_S * SAMPLE_RATE), len(clean))
    spectrum = cast(Any, signal).welch(clean, fs=SAMPLE_RATE, nperseg=window, detrend=False)
    hertz, power = cast("tuple[np.ndarray, np.ndarray]", spectrum)
    white = np.fft.rfft(rng.standard_normal(len(clean)))
    bins = np.fft.rfftfreq(len(clean), 1 / SAMPLE_RATE)
    gain = np.sqrt(np.interp(bins, hertz, power))
    noise: np.ndarray = np.fft.irfft(white * gain, len(clean))
    for segment in pair.segments:
        part = noise[segment.slice]  # a view
        part *= rms(clean[segment.slice]) / rms(part)
    return noise


def _shuffled(clean: Waveform, rng: np.random.Generator) -> Samples:
    samples = clean.samples
    fade = round(CROSS_FADE_S * SAMPLE_RATE)
    count = round(clean.seconds / BLOCK_S)
    if count < 2:
        raise AudioError(
            f"{clean.source} lasts {clean.seconds:.3f} s; expected at least {2 * BLOCK_S:g} s, two "
            "blocks to exchange."
        )
    edges = np.linspace(0, len(samples), count + 1).round().astype(int)
    # One cycle through all blocks, so that none stays where it was.
    cycle = rng.permutation(count)
    moved = np.empty(count, dtype=int)
    moved[cycle] = np.roll(cycle, 1)
    # Equal power: neighbours are unrelated, so that their powers add.
    rise = np.sqrt((np.arange(fade) + 0.5) / fade)
    padded = np.pad(samples.astype(np.float64), (0, fade))
    out = np.zeros(len(padded))
    place = 0
    for block in moved:
        piece = np.array(padded[edges[block] : edges[block + 1] + fade])
        piece[:fade] *= rise
        piece[-fade:] *= rise[::-1]
        out[place : place + len(piece)] += piece
        place += len(piece) - fade
    return _at_rms(out[: len(samples)], rms(samples))


def _other_clip(pair: Pair, corpus: Corpus, rng: np.random.Generator) -> tuple[Samples, str]:
    length = len(pair.clean.samples)
    taken = {pair.clean_answer, pair.corrupt_answer}
    labels: dict[str, list[str]] = {}
    for clip in corpus.clips:
        if clip.label not in taken and clip.label not in labels.setdefault(clip.domain, []):
            labels[clip.domain].append(clip.label)
    domains = [domain for domain, names in labels.items() if names]
    if not domains:
        raise PalscopeError(
            f"pair {pair.name}: the corpus has no clip of another label than "
            f"{', '.join(str(label) for label in taken if label)}; give one that has."
        )
    best: tuple[Samples, str] = (np.zeros(0), "")
    for _ in range(_CLIPS_TRIED):
        domain = _one_of(domains, rng)
        label = _one_of(labels[domain], rng)
        clip = _one_of([c for c in corpus.clips if (c.domain, c.label) == (domain, label)], rng)
        sounding = np.array(trim(corpus.waveforms[clip]))
        if len(sounding) > len(best[0]) and rms(sounding) > 0:
            best = (sounding, clip.name)
        if len(best[0]) >= length / 2:
            break
    sounding, name = best
    sounding = crop(sounding, pair.seconds, rng)
    before = (length - len(sounding)) // 2
    samples = np.pad(sounding, (before, length - len(sounding) - before))
    return _at_rms(samples, rms(pair.clean.samples)), name


def _one_of(items: Sequence[_T], rng: np.random.Generator) -> _T:
    return items[int(rng.integers(len(items)))]


def _at_rms(samples: Samples, target: float) -> Samples:
    return samples * (target / rms(samples))

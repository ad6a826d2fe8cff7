"""Pairs made of labelled clips: one clip, one of two digits, or the order of two sounds swapped."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

from palscope._registry import find
from palscope.audio import Waveform
from palscope.audio._bundled import CLIPS_FOLDER
from palscope.audio._compose import SAMPLE_RATE, Scene, active_part, crop, join
from palscope.audio._waveform import Samples
from palscope.datasets import _questions as questions
from palscope.datasets._manifest import Clip, Corpus, DecodedOnDemand, read_manifest
from palscope.errors import AudioError, PalscopeError
from palscope.pairs._notes import notes_of
from palscope.pairs._pair import Pair, Segment, rms

SLOT_RMS = 0.05
"""Root mean square of every slot that holds sound (full scale is 1; -26 dB)."""

SLOT_STEP_S = 0.3
"""Slots last a multiple of this, in seconds: what a summary token of the demo stands for.

So no token of a clip belongs to two segments.
"""

PAUSE_S = 0.3
"""Digital silence between two parts, in seconds."""

SOUND_S = (1.5, 2.4)
"""Shortest and longest slot of an everyday sound, in seconds."""

MUSIC_S = 3.0
"""Longest slot of a phrase of music, in seconds."""

_FADE = SAMPLE_RATE // 200  # 5 ms: a cut in the midst of a sound would click
_REDRAWS = 20  # of clips of the same labels
_FAILURES = 100  # combinations of labels without a new pair, after which there are none left

_Pool = dict[str, list[Clip]]


@dataclass(frozen=True)
class _Kind:
    domain: str
    question: str
    slots: tuple[str, ...]
    labels: int = 2  # that a pair has


def _question(task: str, ordinal: str = "") -> str:
    return questions.TRAIN[task][0].format(ordinal=ordinal)


_KINDS: dict[str, _Kind] = {
    "sound": _Kind("sound", _question("sound"), ("sound",)),
    "digit": _Kind("speech", _question("digit"), ("digit",)),
    "instrument": _Kind("music", _question("instrument"), ("music",)),
    "speaker": _Kind("speech", _question("digit"), ("digit",), labels=1),
    "first_digit": _Kind(
        "speech", _question("digit_order", "first"), ("first digit", "second digit"), labels=3
    ),
    "last_digit": _Kind(
        "speech", _question("digit_order", "last"), ("first digit", "second digit"), labels=3
    ),
    "sound_order": _Kind(
        "sound", _question("sound_order", "first"), ("first sound", "second sound")
    ),
    "last_sound": _Kind("sound", _question("sound_order", "last"), ("first sound", "second sound")),
}

KINDS = tuple(_KINDS)
"""What `swap_pairs` can swap."""


@dataclass(frozen=True)
class _Draw:
    """The clips of a pair, one a slot."""

    clean: tuple[Clip, ...]
    corrupt: tuple[Clip, ...]
    answers: tuple[str, str | None]


def swap_pairs(
    corpus: Corpus, kind: str, *, n: int, seed: int, split: str | None = None
) -> list[Pair]:
    """`n` pairs of a corpus's clips in which one thing is swapped.

    | kind | clean | corrupt | question (the demo's wordings) |
    |---|---|---|---|
    | `sound`, `digit`, `instrument` | a clip | one of another label | what it is |
    | `speaker` | a digit | the same by another speaker (`group`) | which digit |
    | `first_digit` | two digits | another first digit | the first |
    | `last_digit` | two digits | another last digit | the last |
    | `sound_order` | two sounds | the same two, exchanged | the first |
    | `last_sound` | two sounds | the same two, exchanged | the last |

    Parts are trimmed to where they sound, put into slots that are equally long in both clips, and
    scaled to one RMS over the slot, so that part and clip are equally loud on both sides; it is
    `SLOT_RMS`, or less in all slots of a pair whose peaks would leave full scale. Parts are joined
    by `PAUSE_S` of silence. A digit's slot holds the longer of the digits swapped; a sound's is as
    long as the shorter sound, within `SOUND_S`, and longer ones are cut to a window that holds much
    of them; music is cut after `MUSIC_S`. What is shorter than its slot stands in its middle,
    between silence. Slots last whole `SLOT_STEP_S`. What is not swapped is the same in both clips,
    sample by sample.

    The segments are the slots and the silence between, but for music whose notes are known: there
    they are the clean clip's notes (`note 1`, …; the corrupt clip plays another phrase).

    All digits of a pair are one speaker's (but for `speaker`). Labels come evenly: each once in
    every place before any comes again, and every combination of labels before one comes again.
    No pair comes twice. The same corpus, kind, split and seed give the same pairs, and the first of
    them for a smaller `n`.

    Args:
        corpus: labelled clips; labels are the answers.
        kind: one of `KINDS`.
        n: how many.
        seed: of all draws.
        split: clips of this split alone; None: of any.

    Raises:
        PalscopeError: an unknown kind, or the corpus has not enough labels, speakers or clips.
        AudioError: a clip cannot be decoded, or is silent.
    """
    domain = find(_KINDS, kind, "kind of pair", error=PalscopeError).domain
    pool = corpus.by_label(domain, split)
    rng = np.random.default_rng([seed, *kind.encode()])
    pairs: list[Pair] = []
    for number, draw in enumerate(_draws(pool, kind, n, rng)):
        # A generator for each pair: how one clip is cropped changes no later pair.
        own = np.random.default_rng([seed, number, *kind.encode()])
        pairs.append(_build(draw, kind, number, corpus, own))
    return pairs


def bundled_corpus() -> Corpus:
    """The package's own clips (one to two a label, one speaker), decoded when they are needed."""
    return Corpus(tuple(read_manifest(CLIPS_FOLDER / "clips.csv")), DecodedOnDemand())


def bundled_pairs() -> list[Pair]:
    """Twenty pairs of the bundled clips, always the same.

    Four of each of `digit`, `instrument`, `sound`, `first_digit` and `last_digit`.
    """
    return copy.deepcopy(_bundled_pairs())  # who changes samples in place changes nobody else's


@cache
def _bundled_pairs() -> list[Pair]:
    corpus = bundled_corpus()
    kinds = ("digit", "instrument", "sound", "first_digit", "last_digit")
    return [pair for kind in kinds for pair in swap_pairs(corpus, kind, n=4, seed=0)]


# -- which clips -----------------------------------------------------------------------------------


def _draws(pool: _Pool, kind: str, n: int, rng: np.random.Generator) -> list[_Draw]:
    """`n` different draws."""
    found: dict[tuple[tuple[Clip, ...], tuple[Clip, ...]], _Draw] = {}
    failed = 0
    for labels in _label_rows(tuple(pool), _KINDS[kind].labels, kind, rng):
        if len(found) == n:
            break
        # Clips drawn before are drawn anew for the same labels, so that these stay even.
        tries = (_draw(pool, kind, labels, rng) for _ in range(_REDRAWS))
        new = next((draw for draw in tries if (draw.clean, draw.corrupt) not in found), None)
        failed = 0 if new else failed + 1
        if new:
            found[new.clean, new.corrupt] = new
        elif failed == _FAILURES:
            raise PalscopeError(
                f"{n} pairs of kind {kind!r} asked for, but only {len(found)} different ones were "
                "found; ask for fewer, or give a corpus of more clips."
            )
    return list(found.values())


def _draw(pool: _Pool, kind: str, labels: tuple[str, ...], rng: np.random.Generator) -> _Draw:
    """Clips of these labels: of the clean answer, of the corrupt one, of the digit that is kept."""
    if kind == "speaker":
        one, other = _two_speakers(pool, labels[0], rng)
        return _Draw((one,), (other,), (labels[0], None))
    if _KINDS[kind].domain != "speech":
        one, other, *kept = (_pick(pool[label], rng) for label in labels)
    else:
        one, other, *kept = _one_speaker(pool, labels, rng)
    clean, corrupt = {
        "first_digit": ((one, *kept), (other, *kept)),
        "last_digit": ((*kept, one), (*kept, other)),
        "sound_order": ((one, other), (other, one)),
        "last_sound": ((other, one), (one, other)),
    }.get(kind, ((one,), (other,)))
    return _Draw(clean, corrupt, (labels[0], labels[1]))


def _pick(clips: Sequence[Clip], rng: np.random.Generator) -> Clip:
    return clips[int(rng.integers(len(clips)))]


def _two_speakers(pool: _Pool, label: str, rng: np.random.Generator) -> list[Clip]:
    speakers = sorted({clip.group for clip in pool[label]})
    if len(speakers) < 2:
        raise PalscopeError(
            f"the corpus has {len(speakers)} speaker of {label!r} (column group) in this split; a "
            "swap of speakers needs two."
        )
    chosen = [speakers[int(i)] for i in rng.choice(len(speakers), 2, replace=False)]
    return [_pick([c for c in pool[label] if c.group == name], rng) for name in chosen]


def _one_speaker(pool: _Pool, labels: Sequence[str], rng: np.random.Generator) -> list[Clip]:
    speakers = [{clip.group for clip in pool[label]} for label in labels]
    shared = sorted(speakers[0].intersection(*speakers[1:]))
    if not shared:
        raise PalscopeError(
            f"no speaker (column group) says all of {', '.join(labels)} in this split; give a "
            "corpus in which one does."
        )
    name = shared[int(rng.integers(len(shared)))]
    return [_pick([c for c in pool[label] if c.group == name], rng) for label in labels]


def _label_rows(
    labels: tuple[str, ...], width: int, kind: str, rng: np.random.Generator
) -> Iterator[tuple[str, ...]]:
    """Rows of `width` different labels without end.

    In every block of as many rows as there are labels, each label is once in every place; every
    combination of labels comes before one comes again.
    """
    if len(labels) < width:
        raise PalscopeError(
            f"pairs of kind {kind!r} need {width} labels; the corpus has {', '.join(labels)}."
        )
    while True:
        order: list[str] = [labels[i] for i in rng.permutation(len(labels))]
        shifts = list(itertools.permutations(range(1, len(labels)), width - 1))
        for i in rng.permutation(len(shifts)):
            for place in range(len(order)):
                yield tuple(order[(place + by) % len(order)] for by in (0, *shifts[i]))


# -- the sound -------------------------------------------------------------------------------------


def _build(draw: _Draw, kind: str, number: int, corpus: Corpus, rng: np.random.Generator) -> Pair:
    settings = _KINDS[kind]
    sounding = {
        clip: _sounding(clip, corpus) for clip in dict.fromkeys((*draw.clean, *draw.corrupt))
    }
    slots = [
        _slot_length(settings.domain, [len(sounding[clip]) for clip in clips])
        for clips in zip(draw.clean, draw.corrupt, strict=True)
    ]
    # A clip that stands in both, wherever, is the same part there: cut once.
    places = dict.fromkeys(zip((*draw.clean, *draw.corrupt), (*slots, *slots), strict=True))
    parts = {
        (clip, length): _part(sounding[clip], length, settings.domain, rng)
        for clip, length in places
    }

    # A few cracks and ticks are so short that at this RMS their peaks leave full scale.
    gain = np.float32(1 / max(1.0, *(float(np.abs(part).max()) for part in parts.values())))

    def side(clips: tuple[Clip, ...]) -> Waveform:
        scenes = [Scene(parts[place] * gain, ()) for place in zip(clips, slots, strict=True)]
        samples = join(scenes, [PAUSE_S] * (len(scenes) - 1)).samples
        return Waveform(samples, SAMPLE_RATE, " + ".join(clip.name for clip in clips))

    segments = _slot_segments(settings.slots, slots, draw)
    if kind == "instrument":
        segments = _note_segments(draw.clean[0], corpus, slots[0]) or segments
    return Pair(
        name=f"{kind}_{number:03d}_{_slug(draw.clean, kind)}_{_slug(draw.corrupt, kind)}",
        kind=kind,
        question=settings.question,
        clean=side(draw.clean),
        corrupt=side(draw.corrupt),
        clean_answer=draw.answers[0],
        corrupt_answer=draw.answers[1],
        segments=segments,
    )


def _sounding(clip: Clip, corpus: Corpus) -> Samples:
    """The clip's active part."""
    samples = corpus.waveforms[clip]
    start, end = active_part(samples)
    if rms(samples[start:end]) == 0:
        raise AudioError(f"{clip.path} is silent; a pair needs sound. Remove its row.")
    return np.array(samples[start:end], dtype=np.float32)


def _slot_length(domain: str, lengths: Sequence[int]) -> int:
    """Samples of a slot for parts of these lengths."""
    shortest, longest = min(lengths) / SAMPLE_RATE, max(lengths) / SAMPLE_RATE
    seconds = {
        "speech": longest,
        "sound": min(max(shortest, SOUND_S[0]), SOUND_S[1]),
        "music": min(longest, MUSIC_S),
    }[domain]
    return round(math.ceil(round(seconds / SLOT_STEP_S, 6)) * SLOT_STEP_S * SAMPLE_RATE)


def _part(
    samples: Samples, length: int, domain: str, rng: np.random.Generator
) -> Float[np.ndarray, " length"]:
    """The sound in the middle of its slot, cut to it, without clicks, at `SLOT_RMS`."""
    window = crop(samples, length / SAMPLE_RATE, rng) if domain == "sound" else samples
    part = np.array(window[:length], dtype=np.float32)
    ramp = np.linspace(0.0, 1.0, min(_FADE, len(part)), dtype=np.float32)
    part[: len(ramp)] *= ramp
    part[len(part) - len(ramp) :] *= ramp[::-1]
    before = (length - len(part)) // 2
    slot = np.pad(part, (before, length - len(part) - before))
    return slot * np.float32(SLOT_RMS / rms(slot))


def _slot_segments(names: Sequence[str], slots: Sequence[int], draw: _Draw) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    place = 0
    pause = round(PAUSE_S * SAMPLE_RATE)
    swapped = [ours != theirs for ours, theirs in zip(draw.clean, draw.corrupt, strict=True)]
    for name, length, differs in zip(names, slots, swapped, strict=True):
        if place:
            segments.append(_segment("silence", place, place + pause, False))
            place += pause
        segments.append(_segment(name, place, place + length, differs))
        place += length
    return tuple(segments)


def _note_segments(clip: Clip, corpus: Corpus, length: int) -> tuple[Segment, ...]:
    """A segment for each note that begins within the slot, its rest included; none if unknown."""
    notes = notes_of(clip)
    if not notes:
        return ()
    start, end = active_part(corpus.waveforms[clip])
    before = max(0, length - (end - start)) // 2
    onsets = [round(onset * SAMPLE_RATE) - start + before for onset, _ in notes]
    # Notes of one chord are one segment; the first reaches back to the slot's beginning.
    bounds = [0]
    for onset in onsets[1:]:
        if bounds[-1] + _FADE < onset < length - _FADE:
            bounds.append(onset)
    return tuple(
        _segment(f"note {number}", a, b, True)
        for number, (a, b) in enumerate(itertools.pairwise([*bounds, length]), start=1)
    )


def _segment(name: str, start: int, end: int, differs: bool) -> Segment:
    return Segment(name, start / SAMPLE_RATE, end / SAMPLE_RATE, differs)


def _slug(clips: Sequence[Clip], kind: str) -> str:
    """The clips' labels, and their speakers where these are swapped, as part of a file name."""
    words = [f"{clip.label} {clip.group}" if kind == "speaker" else clip.label for clip in clips]
    return re.sub(r"\W+", "-", " ".join(words)).strip("-")

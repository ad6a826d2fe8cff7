"""What analyses measure: pairs of clips, or clips with a question; chosen by one chooser.

`--audio` names clips (files, folders, manifests) and `--pairs` pairs of one's own; without either
there are the package's. `--kind` makes pairs of labelled clips.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import prompt_batch
from palscope._sweeps.clips import sound_files
from palscope._sweeps.record import file_hash
from palscope.analyses._analysis import ItemT
from palscope.analyses._options import OptionError, Options, option, settings_of
from palscope.audio import Waveform, load_audio
from palscope.audio._bundled import CLIPS_FOLDER
from palscope.datasets import _questions as questions
from palscope.datasets._manifest import Clip, Corpus, DecodedOnDemand, read_manifest
from palscope.errors import PalscopeError
from palscope.evaluation._items import candidates, clean_label, question_about, take_of_each
from palscope.interventions import Sound
from palscope.measures import _grids as grids
from palscope.pairs import Pair, bundled_pairs, read_pairs, swap_pairs
from palscope.pairs._swaps import KINDS

BUNDLED = CLIPS_FOLDER / "clips.csv"
"""The manifest of the clips that come with the package."""

QUESTION = "Which sound is this?"
"""Asked of clips of which nothing is known."""

PAIRS_OF_A_KIND = 20
"""So many are made of a manifest's clips, unless another number is asked for."""


@dataclass(frozen=True)
class AskedClip:
    """One clip with its question.

    Attributes:
        name: the clip's, or the pair's and the side.
        group: its domain, or the kind of pair; means are taken within it.
        question: what is asked.
        sound: the file, or the samples.
        answer: the right one; None where it is not known.
        choices: what to choose from, the right one among them; empty where that is not known.
        other: the answer to compare with, where there is one: the other clip's of a pair.
        segments: stretches of it by name; empty where it has no parts.
        side: `clean` or `corrupt` of a pair, else empty.
    """

    name: str
    group: str
    question: str
    sound: Path | Waveform
    answer: str | None = None
    choices: tuple[str, ...] = ()
    other: str | None = None
    segments: Mapping[str, Sound] = field(default_factory=dict)
    side: Literal["", "clean", "corrupt"] = ""

    @cached_property
    def clip(self) -> Waveform:
        """The sound, read when it is first asked for. `AudioError` where it cannot be read."""
        return load_audio(self.sound)

    @property
    def digest(self) -> str:
        """Of all that a measure may depend on; of a file that is not there, of its name."""
        about = (self.group, self.question, self.answer, self.choices, self.other)
        digest = hashlib.sha256(repr((about, dict(self.segments), self.side)).encode())
        if isinstance(self.sound, Waveform):
            digest.update(f"{self.sound.sample_rate} ".encode() + self.sound.samples.tobytes())
        else:
            digest.update((file_hash(self.sound) or str(self.sound)).encode())
        return digest.hexdigest()

    def require_choices(self) -> None:
        """Raise `PalscopeError` where there is no right answer among several to rank."""
        if self.answer is None or len(self.choices) < 2:
            raise PalscopeError(
                f"{self.name} has no answer among candidates; give a manifest with labels, or "
                "pairs."
            )

    def places(self, step: float | None = None) -> Mapping[str, Sound]:
        """Its named stretches, or equal ones of `step` seconds (by default a quarter of it)."""
        return _places(self.segments, self.clip.seconds, step)


def places_of(pair: Pair, step: float | None = None) -> Mapping[str, Sound]:
    """A pair's segments, or equal stretches of `step` seconds."""
    segments = {each.name: Sound(each.start, each.end) for each in pair.segments}
    return _places(segments, pair.seconds, step)


def _places(named: Mapping[str, Sound], seconds: float, step: float | None) -> Mapping[str, Sound]:
    if named and step is None:
        return named
    return grids.steps(seconds, seconds / 4 if step is None else step)


# -- options ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ItemOptions(Options):
    """Which clips or pairs are measured."""

    audio: tuple[Path, ...] = option(
        (),
        "clips: sound files, folders of them, manifests (CSV with columns path, domain, label)",
        page=False,
    )
    pairs: Path | None = option(
        None,
        "your own pairs: CSV with columns clean, corrupt, question, clean_answer, corrupt_answer",
        page=False,
    )
    kind: tuple[str, ...] = option(
        (),
        f"pairs of these kinds ({', '.join(KINDS)}): the package's, or made of a manifest's clips",
        page=False,
    )
    split: str | None = option(None, "of a manifest, only rows of this split", page=False)
    n: int | None = option(
        None,
        "so many clips of each domain, or pairs of each kind (default: all; of pairs made of a "
        f"manifest {PAIRS_OF_A_KIND})",
        least=1,
        page=False,
    )
    only: tuple[str, ...] = option((), "these clips or pairs alone, by name", page=False)


@dataclass(frozen=True, kw_only=True)
class PairOptions(ItemOptions):
    """Pairs of a clean and a corrupt clip; by default the package's."""


@dataclass(frozen=True, kw_only=True)
class ClipOptions(ItemOptions):
    """Clips with a question each; by default the package's labelled clips."""

    pairs_by_default: ClassVar[bool] = False
    """Whether it is the package's pairs instead."""

    question: str | None = option(
        None, f"default: the domain's in the demo's training, else {QUESTION}", page=False
    )


@dataclass(frozen=True, kw_only=True)
class SharedPasses(ClipOptions):
    """Clips that are asked about together."""

    batch: int = option(8, "clips share passes", least=1, page=False)


def asked_together(model: HookedAudioModel, clips: Sequence[AskedClip]) -> dict[str, Any]:
    """The inputs of every clip's question, a row each; raises as `HookedAudioModel.inputs`."""
    asked = [([clip.clip], clip.question) for clip in clips]
    return prompt_batch(model.processor, asked, model.model.device)


# -- the chooser -----------------------------------------------------------------------------------


def chosen_pairs(options: PairOptions) -> list[Pair]:
    """The pairs that the options name.

    Raises:
        OptionError: options that do not go together, or name nothing.
        PalscopeError: a file cannot be read, or holds no such pairs.
    """
    return _of_names(_pairs(options), options.only)


def chosen_clips(options: ClipOptions, *, corrupt: bool = False) -> list[AskedClip]:
    """The clips that the options name, each with its question; domains take turns.

    Args:
        options: of clips, or of pairs.
        corrupt: of a pair both clips, not the clean one alone.

    Raises:
        OptionError: options that do not go together, or name nothing.
        PalscopeError: a file cannot be read, or holds no such clips.
    """
    by_default = options.pairs_by_default and not options.audio
    if not (options.pairs or options.kind or by_default):
        return _of_names(_labelled(options), options.only)
    if options.question is not None:
        raise OptionError("--question is for clips; pairs have theirs.")
    pairs = _of_names(_pairs(options), options.only)
    return [clip for pair in pairs for clip in sides(pair, corrupt)]


def sides(pair: Pair, corrupt: bool = False) -> list[AskedClip]:
    """The clean clip of a pair with its question; with `corrupt` the other one, too."""
    both = tuple(each for each in (pair.clean_answer, pair.corrupt_answer) if each is not None)
    known = (labels for labels in questions.LABELS.values() if set(both) <= set(labels))
    segments = {each.name: Sound(each.start, each.end) for each in pair.segments}
    clean = AskedClip(
        name=pair.name,
        group=pair.kind,
        question=pair.question,
        sound=pair.clean,
        answer=pair.clean_answer,
        choices=next(known, both),
        other=pair.corrupt_answer,
        segments=segments if len(segments) > 1 else {},
        side="clean",
    )
    if not corrupt:
        return [clean]
    other = replace(
        clean,
        name=f"{pair.name} corrupt",
        sound=pair.corrupt,
        answer=pair.corrupt_answer,
        other=pair.clean_answer,
        side="corrupt",
    )
    return [replace(clean, name=f"{pair.name} clean"), other]


def _pairs(options: ItemOptions) -> list[Pair]:
    if options.pairs is not None:
        _refuse(options, "--pairs", "audio", "kind", "split")
        return read_pairs(options.pairs)[: options.n]
    unknown = [kind for kind in options.kind if kind not in KINDS]
    if unknown:
        raise OptionError(f"--kind {' '.join(unknown)}: kinds of pairs are {', '.join(KINDS)}.")
    if not options.audio:
        _refuse(options, "the package's pairs", "split")
        return _bundled(options)
    manifests = [path for path in options.audio if path.suffix.lower() == ".csv"]
    if len(manifests) != 1 or len(options.audio) != 1:
        raise OptionError("pairs are made of one manifest's clips: give one CSV as --audio.")
    corpus = Corpus(tuple(read_manifest(manifests[0])), DecodedOnDemand())
    n = options.n or PAIRS_OF_A_KIND
    return [
        pair
        for kind in options.kind or KINDS
        for pair in swap_pairs(corpus, kind, n=n, seed=options.seed, split=options.split)
    ]


def _bundled(options: ItemOptions) -> list[Pair]:
    pairs = bundled_pairs()
    known = dict.fromkeys(pair.kind for pair in pairs)
    missing = [kind for kind in options.kind if kind not in known]
    if missing:
        raise OptionError(
            f"the package has no pairs of kind {', '.join(missing)} (it has {', '.join(known)}); "
            "give a manifest as --audio."
        )
    return [
        pair
        for kind in options.kind or known
        for pair in [each for each in pairs if each.kind == kind][: options.n]
    ]


def _labelled(options: ClipOptions) -> list[AskedClip]:
    """Clips of manifests with their labels, and files of which nothing is known."""
    every, chosen = _clips_of(options)
    choices = candidates([clip for clip in every if clip.label])
    if options.n is not None:
        chosen = take_of_each(chosen, options.n)
    domains = [
        [clip for clip in chosen if clip.domain == domain]
        for domain in dict.fromkeys(clip.domain for clip in chosen)
    ]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*domains))
    return [_asked(clip, choices, options) for clip in turns if clip is not None]


def clips_in(paths: Sequence[Path]) -> list[Clip]:
    """All clips of manifests, folders and sound files; of none given, the package's."""
    every: list[Clip] = []
    for path in paths or (BUNDLED,):
        if path.suffix.lower() == ".csv":
            every += read_manifest(path)
        else:
            files = sound_files(path) if path.is_dir() else [path]
            every += [Clip(str(file), file, domain="", label="") for file in files]
    return every


def _clips_of(options: ClipOptions) -> tuple[list[Clip], list[Clip]]:
    """All clips of the files that are named, and those of the split that is asked for."""
    every = clips_in(options.audio)
    if options.split is None:
        return every, every
    chosen = [clip for clip in every if clip.split == options.split]
    if not chosen:
        raise OptionError(
            f"--split {options.split}: no clip of {', '.join(map(str, options.audio))} has it."
        )
    return every, chosen


def _asked(clip: Clip, choices: Mapping[str, Sequence[str]], options: ClipOptions) -> AskedClip:
    offered = tuple(choices.get(clip.domain, ())) if clip.label else ()
    own = question_about(clip, offered, seed=options.seed) if offered else QUESTION
    return AskedClip(
        name=clip.name,
        group=clip.domain or "all",
        question=options.question or own,
        sound=clip.path,
        answer=clean_label(clip.label) if clip.label else None,
        choices=offered,
    )


def _of_names(items: list[ItemT], names: Sequence[str]) -> list[ItemT]:
    if not names:
        return items
    known = {each.name: each for each in items}
    missing = [name for name in names if name not in known]
    if missing:
        raise OptionError(f"--only {' '.join(missing)}: there are {', '.join(known)}.")
    return [known[name] for name in names]


def _refuse(options: Any, beside: str, *names: str) -> None:
    """An option that would do nothing is an error."""
    known = settings_of(options.__class__)
    for name in names:
        if getattr(options, name) not in (known[name].default, None):
            raise OptionError(f"{known[name].flag} does not go with {beside}; leave it out.")

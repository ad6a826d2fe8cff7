"""The demo's examples: a waveform, a question, its answer and where in time the answer lies.

Training examples are drawn by index: example `i` of a seed is always the same, on any number of
workers and in any order. Validation examples are plain lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch.utils.data import Dataset

from palscope.audio._compose import LabelledSpan, Scene, at_level, crop, join, overlay, scene, trim
from palscope.datasets import _questions as questions
from palscope.datasets._augment import augment
from palscope.datasets._manifest import Clip, Corpus, ManifestError
from palscope.datasets._questions import Wordings
from palscope.errors import PalscopeError


@dataclass(frozen=True)
class Example:
    """One question about sound.

    `waveforms` are mono float32 at 16 kHz (one for every example made here), `kind` the task
    (`sound`, `digit_first`, `mixed_instrument`, …), `choices` the answers to rank (empty for
    `digit_list` and `sound_list`, whose answers are sequences), `spans` what sounds when, in
    seconds.
    """

    waveforms: list[Float[np.ndarray, " _samples"]]
    question: str
    answer: str
    kind: str
    choices: list[str]
    spans: list[LabelledSpan]


MIX: dict[str, float] = {
    "sound": 0.30,
    "digit": 0.20,
    "instrument": 0.15,
    "temporal_digits": 0.20,
    "temporal_sounds": 0.08,
    "mixed": 0.07,
}
"""Share of each family of examples in training."""

COMPOSED: dict[str, tuple[str, ...]] = {
    "temporal_digits": ("speech",),
    "temporal_sounds": ("sound",),
    "mixed": ("sound", "speech", "music"),
}
"""The families whose clips are put together, with the domains that they need."""

DOMAIN_OF_TASK = {task: domain for domain, task in questions.TASK_OF_DOMAIN.items()}


class DemoExamples(Dataset[Example]):
    """The training examples of the demo, `size` of them, from the families of `mix` by their share.

    Labels are drawn evenly within a family, whatever their number of clips.

    Raises:
        ManifestError: the corpus lacks a domain or a label in this split.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        size: int,
        seed: int = 0,
        split: str = "train",
        mix: Mapping[str, float] | None = None,
    ) -> None:
        self.mix = dict(MIX if mix is None else mix)
        self.corpus = corpus
        self.size = size
        self.seed = seed
        self.pools = _pools(corpus, tuple(questions.LABELS), split)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.size:
            raise IndexError(f"example {index} of {self.size}")
        rng = np.random.default_rng([self.seed, index])
        family = str(rng.choice(list(self.mix), p=list(self.mix.values())))
        maker = _Maker(self.corpus, self.pools, rng, wordings="train", augmented=True)
        return maker.make(family)


def validation_examples(
    corpus: Corpus,
    kind: str,
    *,
    wordings: Wordings = "train",
    n: int | None = None,
    split: str | None = "validation",
    seed: int = 0,
) -> list[Example]:
    """A fixed list of examples of one family, from clips no training example has heard.

    `sound`, `digit` and `instrument` are single clips as they are: by default every sound and
    instrument, and 12 of each digit (120). `temporal_digits`, `temporal_sounds` and `mixed` are
    composed, 200 of them, without augmentation. `n` takes the first so many; labels come in turn,
    so any beginning is about even. `split` None takes clips of any split.

    Raises:
        PalscopeError: an unknown kind.
        ManifestError: the corpus lacks the domain, or a label of it, in this split.
    """
    if kind not in MIX:
        raise PalscopeError(f"no family of examples called {kind!r}; there are {', '.join(MIX)}")
    if kind in DOMAIN_OF_TASK:
        clips = _in_turn(corpus.by_label(DOMAIN_OF_TASK[kind], split))
        count = 120 if kind == "digit" else len(clips)
        return [
            single_example(clip, corpus, wordings=wordings, seed=seed)
            for clip in clips[: count if n is None else n]
        ]
    pools = _pools(corpus, COMPOSED[kind], split)
    family = list(MIX).index(kind)
    return [
        _Maker(
            corpus,
            pools,
            np.random.default_rng([seed, family, index]),
            wordings=wordings,
            augmented=False,
        ).make(kind)
        for index in range(200 if n is None else n)
    ]


def single_example(
    clip: Clip, corpus: Corpus, *, wordings: Wordings = "train", seed: int = 0
) -> Example:
    """A whole clip, as it is, with a question in a wording that depends on its name alone."""
    task = questions.TASK_OF_DOMAIN[clip.domain]
    choices = list(questions.LABELS[clip.domain])
    samples = np.array(corpus.waveforms[clip])
    return Example(
        waveforms=[samples],
        question=questions.ask(task, choices, named_rng(clip.name, seed), wordings=wordings),
        answer=clip.label,
        kind=task,
        choices=choices,
        spans=list(scene(clip.label, samples).spans),
    )


def named_rng(name: str, seed: int) -> np.random.Generator:
    """A generator that depends on a clip's name and the seed alone."""
    return np.random.default_rng([seed, *name.encode()])


Pools = dict[str, dict[str, list[Clip]]]


def _pools(corpus: Corpus, domains: Sequence[str], split: str | None) -> Pools:
    pools = {domain: corpus.by_label(domain, split) for domain in domains}
    for domain, pool in pools.items():
        if set(pool) != set(questions.LABELS[domain]):
            raise ManifestError(
                f"domain {domain!r}, split {split!r}: the labels are {sorted(pool)}, "
                f"expected {sorted(questions.LABELS[domain])}"
            )
    return pools


def _in_turn(groups: dict[str, list[Clip]]) -> list[Clip]:
    """One clip of each label, then the next of each, until none is left."""
    longest = max(len(clips) for clips in groups.values())
    return [clips[i] for i in range(longest) for clips in groups.values() if i < len(clips)]


@dataclass(frozen=True)
class _Maker:
    """Makes one example from one random generator."""

    corpus: Corpus
    pools: Pools
    rng: np.random.Generator
    wordings: Wordings
    augmented: bool

    def make(self, family: str) -> Example:
        makers: dict[str, Callable[[], Example]] = {
            "sound": lambda: self.single("sound"),
            "digit": lambda: self.single("speech"),
            "instrument": lambda: self.single("music"),
            "temporal_digits": self.temporal_digits,
            "temporal_sounds": self.temporal_sounds,
            "mixed": self.mixed,
        }
        return makers[family]()

    # Each of the following draws from `rng` in a fixed order: that is what makes an example a
    # function of its index.

    def single(self, domain: str) -> Example:
        label = self.label(domain)
        part = self.part(domain, label, longest={"sound": 5.0, "music": 3.0}.get(domain))
        return self.example(
            part, questions.TASK_OF_DOMAIN[domain], label, self.options(domain, label)
        )

    def temporal_digits(self) -> Example:
        """Two to four digits with pauses of 0.1 to 0.4 s (one to four where they are counted).

        A third of the examples ask for all digits in order: the same clips, and an answer that
        says where every digit is, which teaches order faster than one digit at a time.
        """
        task = str(self.rng.choice(["digit_order", "digit_count", "digit_list"], p=[0.5, 0.2, 0.3]))
        if task == "digit_list" and not self.augmented:
            task = "digit_order"  # sequences are not ranked
        count = int(self.rng.integers(1 if task == "digit_count" else 2, 5))
        digits = [
            str(d)
            for d in self.rng.choice(
                questions.LABELS["speech"], count, replace=task == "digit_count"
            )
        ]
        clip = self.spoken(digits)
        if task == "digit_list":
            return self.example(clip, task, " ".join(digits), [], kind=task)
        if task == "digit_count":
            answer = questions.COUNTS[count - 1]
            return self.example(clip, task, answer, list(questions.COUNTS), kind=task)
        # "second" and "last" are the same of two digits: both ways to ask are right
        ordinal = str(self.rng.choice(questions.ORDINALS))
        answer = digits[{"first": 0, "second": 1, "last": -1}[ordinal]]
        choices = list(questions.LABELS["speech"])
        return self.example(clip, task, answer, choices, ordinal=ordinal, kind=f"digit_{ordinal}")

    def temporal_sounds(self) -> Example:
        """Two sounds of 1.5 to 2.5 s; the choices are these two, so chance is a half.

        In training, a third of the examples ask for both in order, for the reason given above.
        """
        both = self.augmented and self.rng.random() < 1 / 3
        labels = [str(d) for d in self.rng.choice(questions.LABELS["sound"], 2, replace=False)]
        parts = [self.part("sound", label, longest=2.5, shortest=1.5) for label in labels]
        clip = join(self.levelled(parts), [self.rng.uniform(0.1, 0.4)])
        if both:
            return self.example(clip, "sound_list", ", ".join(labels), [])
        ordinal = str(self.rng.choice(["first", "last"]))
        answer = labels[0 if ordinal == "first" else -1]
        return self.example(
            clip, "sound_order", answer, labels, ordinal=ordinal, kind=f"sound_{ordinal}"
        )

    def mixed(self) -> Example:
        """Two domains in one clip, one after the other or one 6 to 12 dB under the other.

        The question is about the first of the two drawn, which is the louder one.
        """
        domain, other = (str(d) for d in self.rng.choice(list(questions.LABELS), 2, replace=False))
        label, other_label = self.label(domain), self.label(other)
        front = self.part(domain, label, longest=2.5, shortest=1.5)
        back = self.part(other, other_label, longest=2.5, shortest=1.5)
        if self.rng.random() < 0.5:
            pair = self.levelled([front, back])
            if self.rng.random() < 0.5:
                pair.reverse()
            clip = join(pair, [self.rng.uniform(0.1, 0.4)])
        else:
            clip = overlay(front, back, back_db=-self.rng.uniform(6.0, 12.0), rng=self.rng)
        task = questions.TASK_OF_DOMAIN[domain]
        return self.example(clip, task, label, self.options(domain, label), kind=f"mixed_{task}")

    def example(
        self,
        clip: Scene,
        task: str,
        answer: str,
        choices: list[str],
        *,
        kind: str | None = None,
        ordinal: str = "",
    ) -> Example:
        if self.augmented:
            clip = augment(clip, self.rng)
        question = questions.ask(task, choices, self.rng, wordings=self.wordings, ordinal=ordinal)
        return Example([clip.samples], question, answer, kind or task, choices, list(clip.spans))

    def label(self, domain: str) -> str:
        labels = list(self.pools[domain])
        return labels[self.rng.integers(len(labels))]

    def options(self, domain: str, label: str) -> list[str]:
        """All labels of the domain; in training, two times in five only some of them.

        So a list of options is worth reading.
        """
        labels = list(questions.LABELS[domain])
        if not self.augmented or self.rng.random() < 0.6:
            return labels
        others = [each for each in labels if each != label]
        few = self.rng.choice(others, self.rng.integers(1, 5), replace=False)
        return [label, *(str(each) for each in few)]

    def part(
        self, domain: str, label: str, *, longest: float | None, shortest: float = 2.0
    ) -> Scene:
        """One clip of a label; sounds and music are cut to a random length in seconds."""
        clips = self.pools[domain][label]
        samples: np.ndarray[Any, Any] = self.corpus.waveforms[clips[self.rng.integers(len(clips))]]
        if domain != "speech" and longest is not None:
            samples = crop(samples, self.rng.uniform(shortest, longest), self.rng)
        return scene(label, np.array(samples))

    def spoken(self, digits: list[str]) -> Scene:
        """Digits by one speaker where the manifest names speakers, else by anyone."""
        domain = self.pools["speech"]
        speakers = sorted({clip.group for digit in digits for clip in domain[digit]})
        speaker = speakers[self.rng.integers(len(speakers))]
        parts: list[Scene] = []
        for digit in digits:
            clips = [c for c in domain[digit] if c.group == speaker] or domain[digit]
            samples = self.corpus.waveforms[clips[self.rng.integers(len(clips))]]
            parts.append(scene(digit, trim(np.array(samples))))
        gaps = self.rng.uniform(0.1, 0.4, len(digits) - 1)
        return join(self.levelled(parts), [float(gap) for gap in gaps])

    def levelled(self, parts: list[Scene]) -> list[Scene]:
        """Parts of about the same loudness (within 3 dB), so that it does not tell them apart."""
        return [
            Scene(at_level(p.samples, 0.05 * 10 ** (self.rng.uniform(-3.0, 3.0) / 20)), p.spans)
            for p in parts
        ]

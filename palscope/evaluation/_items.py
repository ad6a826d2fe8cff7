"""What an evaluation asks: one item a row of a manifest, or one a composed clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from palscope.datasets import _questions as questions
from palscope.datasets._examples import Example, named_rng
from palscope.datasets._manifest import Clip, ManifestError, Waveforms
from palscope.datasets._questions import Wordings
from palscope.evaluation._ranking import ChoiceQuestion


@dataclass(frozen=True)
class EvaluationItem:
    """One question with its truth. The audio is read only when the question is asked.

    `key` names the item within its run. `in_audio` is what the audio holds: the answer itself, but
    another label where the audio was swapped, and every label in a composed clip.
    """

    key: str
    domain: str
    question: str
    answer: str
    choices: tuple[str, ...]
    in_audio: tuple[str, ...]
    audio: Callable[[], list[np.ndarray]]

    def asked(self) -> ChoiceQuestion:
        """Load the audio. AudioError when it cannot be read."""
        return ChoiceQuestion(self.audio(), self.question, list(self.choices))


def clip_of(key: str) -> str:
    """The clip that an item's key names: several of a manifest's rows may ask about one."""
    return key.partition(":")[2] or key


def clean_label(label: str) -> str:
    """A label as an answer is written: lower-case, words apart (`Crying_baby`: crying baby)."""
    return " ".join(label.replace("_", " ").lower().split())


def candidates(clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """The answers to rank in each domain: the demo's labels, then those only the manifest has."""
    domains: dict[str, tuple[str, ...]] = {}
    for domain in dict.fromkeys(clip.domain for clip in clips):
        known = questions.LABELS.get(domain, ())
        named = {clean_label(clip.label) for clip in clips if clip.domain == domain}
        domains[domain] = (*known, *sorted(named - set(known)))
    return domains


def question_about(
    clip: Clip, options: Sequence[str], *, seed: int, wordings: Wordings = "train"
) -> str:
    """What is asked of a labelled clip, in a wording that depends on its name and the seed."""
    task = questions.TASK_OF_DOMAIN.get(clip.domain, clip.domain)
    return questions.ask(task, options, named_rng(clip.name, seed), wordings=wordings)


def manifest_items(
    clips: Sequence[Clip],
    waveforms: Waveforms,
    choices: Mapping[str, Sequence[str]],
    *,
    wordings: Wordings = "train",
    swapped: bool = False,
    seed: int = 0,
) -> list[EvaluationItem]:
    """One item a clip, with its domain's `choices` (see `candidates`).

    The wording depends on the clip's name and the seed alone.

    With `swapped`, each question keeps its truth and hears another clip of the same domain and a
    different label.

    Raises:
        ManifestError: `swapped`, and a domain has clips of one label only.
    """
    given = swap_audio(clips, seed) if swapped else list(clips)
    items: list[EvaluationItem] = []
    for row, (clip, other) in enumerate(zip(clips, given, strict=True)):
        options = tuple(choices[clip.domain])
        items.append(
            EvaluationItem(
                key=f"{row}:{clip.name}",
                domain=clip.domain,
                question=question_about(clip, options, seed=seed, wordings=wordings),
                answer=clean_label(clip.label),
                choices=options,
                in_audio=(clean_label(other.label),),
                audio=lambda other=other: [waveforms[other]],
            )
        )
    return items


def example_items(family: str, examples: Sequence[Example]) -> list[EvaluationItem]:
    """Items of composed clips (time questions, mixed domains); the domain is the example's kind."""
    return [
        EvaluationItem(
            key=f"{family}/{number}",
            domain=example.kind,
            question=example.question,
            answer=example.answer,
            choices=tuple(example.choices),
            in_audio=tuple(span.label for span in example.spans),
            audio=lambda example=example: example.waveforms,
        )
        for number, example in enumerate(examples)
    ]


def swap_audio(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """For each clip another one to hear instead: same domain, different label.

    A random permutation within the domain, so that every clip is heard once; only where one label
    holds more than half of a domain are some clips heard twice.

    Raises:
        ManifestError: a domain has clips of one label only.
    """
    rng = np.random.default_rng(seed)
    given = list(clips)
    for domain in dict.fromkeys(clip.domain for clip in clips):
        rows = [row for row, clip in enumerate(clips) if clip.domain == domain]
        labels = [clean_label(clips[row].label) for row in rows]
        if len(set(labels)) < 2:
            raise ManifestError(
                f"--swapped: all clips of domain {domain!r} have the label {labels[0]!r}; "
                "add clips of another label or leave the domain out"
            )
        order = [int(place) for place in rng.permutation(len(rows))]
        for place, label in enumerate(labels):
            taken = labels[order[place]]
            if taken != label:
                continue
            # Exchange with a place where both fit, so that no clip is heard twice.
            partners = [
                other
                for other, theirs in enumerate(labels)
                if labels[order[other]] != label and taken != theirs
            ]
            if partners:
                other = partners[int(rng.integers(len(partners)))]
                order[place], order[other] = order[other], order[place]
            else:
                others = [other for other, theirs in enumerate(labels) if theirs != label]
                order[place] = others[int(rng.integers(len(others)))]
        for place, row in enumerate(rows):
            given[row] = clips[rows[order[place]]]
    return given


def take_of_each(clips: Sequence[Clip], n: int) -> list[Clip]:
    """`n` clips of each domain, spread over its labels; domain by domain."""
    return [
        clip
        for domain in dict.fromkeys(clip.domain for clip in clips)
        for clip in take_evenly([each for each in clips if each.domain == domain], n)
    ]


class Labelled(Protocol):
    """What has a domain and in it a label."""

    @property
    def domain(self) -> str:
        """The domain."""
        ...

    @property
    def label(self) -> str:
        """The label in it."""
        ...


L = TypeVar("L", bound=Labelled)


def take_evenly(clips: Sequence[L], n: int) -> list[L]:
    """`n` of the clips, spread over domains and in each over labels, in their order."""
    turns: list[tuple[int, int]] = []
    for domain in dict.fromkeys(clip.domain for clip in clips):
        taken: dict[str, int] = {}
        rows: list[tuple[int, int]] = []
        for row, clip in enumerate(clips):
            if clip.domain == domain:
                taken[clip.label] = taken.get(clip.label, 0) + 1
                rows.append((taken[clip.label], row))
        turns += [(turn, row) for turn, (_, row) in enumerate(sorted(rows))]
    return [clips[row] for row in sorted(row for _, row in sorted(turns)[:n])]

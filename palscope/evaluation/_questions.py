"""Labelled clips as questions that several models are asked alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from palscope.datasets._manifest import Clip, DecodedOnDemand
from palscope.evaluation._items import EvaluationItem, candidates, manifest_items, take_of_each
from palscope.evaluation._ranking import ChoiceQuestion


@dataclass(frozen=True)
class Questions:
    """What every model is asked. `digest` is of the questions and their samples."""

    items: tuple[EvaluationItem, ...]
    asked: tuple[ChoiceQuestion, ...]
    digest: str

    @classmethod
    def about(cls, clips: Sequence[Clip], n: int | None = None) -> Questions:
        """One question a clip, in a wording of the demo's training.

        Args:
            clips: a manifest's rows; each domain's labels are the choices.
            n: so many clips of each domain, spread over labels.

        Raises:
            AudioError: a clip cannot be read.
        """
        chosen = take_of_each(clips, len(clips) if n is None else n)
        items = manifest_items(chosen, DecodedOnDemand(), candidates(clips))
        asked = tuple(item.asked() for item in items)
        digest = hashlib.sha256()
        for item, each in zip(items, asked, strict=True):
            digest.update(repr((item.key, item.answer, each.question, each.choices)).encode())
            for waveform in each.waveforms:
                digest.update(waveform.tobytes())
        return cls(tuple(items), asked, digest.hexdigest())

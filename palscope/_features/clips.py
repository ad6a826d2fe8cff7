"""Clips with what is known of them: what activations are collected over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palscope._sweeps.record import file_hash
from palscope.audio import Waveform
from palscope.datasets._manifest import Clip

ABOUT = ("name", "label", "domain", "split", "group", "question")
"""What a store keeps of a clip, beside its length."""


@dataclass(frozen=True)
class LabelledClip:
    """One clip of a data set.

    Attributes:
        name: names it; no two of a data set have the same.
        sound: the file, or the samples.
        label: what is heard.
        domain: which labels it is one of: "sound", "speech", "music".
        split: "train", "validation".
        group: its speaker or recording, which should not stand in two splits.
        question: asked with it, which sites in the decoder depend on (a transcriber is always
            asked for the transcript); by default any.
        seconds: its length where that is known beforehand.
    """

    name: str
    sound: Path | Waveform
    label: str = ""
    domain: str = ""
    split: str = ""
    group: str = ""
    question: str = ""
    seconds: float | None = None

    @property
    def digest(self) -> str:
        """Of all that its rows and their labels depend on; of a missing file, of its name."""
        digest = hashlib.sha256(repr([getattr(self, name) for name in ABOUT]).encode())
        if isinstance(self.sound, Waveform):
            samples = np.ascontiguousarray(self.sound.samples)
            digest.update(f"{self.sound.sample_rate} ".encode() + samples.tobytes())
        else:
            digest.update((file_hash(self.sound) or str(self.sound)).encode())
        return digest.hexdigest()


def labelled(clips: Iterable[LabelledClip | Clip]) -> Iterator[LabelledClip]:
    """The clips, rows of a manifest among them, one at a time."""
    for clip in clips:
        if isinstance(clip, LabelledClip):
            yield clip
            continue
        yield LabelledClip(
            clip.name,
            clip.path,
            clip.label,
            clip.domain,
            clip.split,
            clip.group,
            seconds=clip.duration_s,
        )

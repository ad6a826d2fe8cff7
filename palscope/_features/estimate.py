"""What a store will take on the disk, told before it is made."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palscope._features.clips import LabelledClip
from palscope._features.rows import RowReader
from palscope.audio import load_audio
from palscope.errors import AudioError, PalscopeError

_SHORT_S, _LONG_S = 2.0, 10.0
_READ = 32
"""Clips of unknown length that are read: the others are taken to be as long on average."""
_ABOUT_A_ROW = 8 + 8 + 1 + 4
"""Bytes beside its values: seconds, stream, clip."""


@dataclass(frozen=True)
class Size:
    """How rows grow with sound.

    Attributes:
        width: numbers in a row, by hook point.
        fixed: bytes of any clip, however short.
        per_second: bytes of a second of sound.
    """

    width: dict[str, int]
    fixed: float
    per_second: float

    @classmethod
    def of(cls, reader: RowReader, question: str | None = None) -> Size:
        """As silence of two lengths has them: one pass, in which a wrong address is found out."""
        rate = reader.model.processor.sample_rate
        question = question or reader.model.processor.any_question
        short, long = (
            load_audio(np.zeros(round(s * rate), np.float32), native_rate=rate)
            for s in (_SHORT_S, _LONG_S)
        )
        (found,) = reader([(short, question)])
        counts = reader.counts(reader.inputs([(long, question)]))
        a_row = {
            hook: _ABOUT_A_ROW + rows.values.shape[1] * rows.values.element_size()
            for hook, rows in found.items()
        }
        here = sum(len(rows.stream) * a_row[hook] for hook, rows in found.items())
        there = sum(count * a_row[hook] for hook, count in counts.items())
        per_second = (there - here) / (_LONG_S - _SHORT_S)
        width = {hook: rows.values.shape[1] for hook, rows in found.items()}
        return cls(width, here - per_second * _SHORT_S, per_second)

    def total(self, clips: Sequence[LabelledClip]) -> int:
        """Bytes of all clips, about."""
        return round(len(clips) * self.fixed + _seconds(clips) * self.per_second)


def _seconds(clips: Sequence[LabelledClip]) -> float:
    """Of sound in all, about."""
    known = [clip.seconds for clip in clips if clip.seconds is not None]
    others = [clip for clip in clips if clip.seconds is None]
    read: list[float] = []
    for clip in others[:: -(-len(others) // _READ) or 1]:
        try:
            read.append(load_audio(clip.sound).seconds)
        except AudioError:
            continue  # told by name when its turn comes
    return sum(known) + len(others) * (sum(read) / len(read) if read else 0.0)


def check_room(folder: Path, needed: int) -> str:
    """How much is needed and how much is free, as a sentence's end.

    Raises:
        PalscopeError: it is too little. What stands in the folder already counts as room.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    stored = sum(file.stat().st_size for file in (folder / "shards").glob("*.safetensors"))
    free = shutil.disk_usage(there).free
    told = f"about {in_words(needed)}, of {in_words(free + stored)} that are free"
    if needed > free + stored:
        raise PalscopeError(
            f"{folder} would take {told}; free some, give another folder, or fewer sites or clips."
        )
    return told


def in_words(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"

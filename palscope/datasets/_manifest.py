"""Labelled clips from a CSV manifest, with a way to their samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from palscope._files import CsvRow, read_table
from palscope.audio import load_audio
from palscope.audio._compose import SAMPLE_RATE
from palscope.datasets._decoded import WaveformCache, decode_once
from palscope.errors import PalscopeError

REQUIRED = ("path", "domain", "label")


class ManifestError(PalscopeError):
    """A manifest that cannot be read, or whose rows lack something."""


@dataclass(frozen=True)
class Clip:
    """One row of a manifest.

    `name` is the path as the manifest writes it, `path` the file itself; `duration_s` is in
    seconds. The fields that a manifest may leave out are empty or None.
    """

    name: str
    path: Path
    domain: str
    label: str
    split: str = ""
    group: str = ""
    duration_s: float | None = None
    licence: str = ""


def read_manifest(path: str | Path) -> list[Clip]:
    """Read a CSV with columns `path, domain, label`, one row a clip.

    The columns `split, group, duration_s, licence` are read if present, others ignored. Paths are
    relative to the manifest's folder. The audio files themselves are not touched: see
    `missing_audio`.

    Raises:
        ManifestError: no such file, not UTF-8 CSV, a column missing or given twice, a row twice
            or with more or fewer cells than columns, or an empty or unusable cell; the message
            names the file, the line and the column.
    """
    path = Path(path).absolute()
    wanted = f"a CSV with columns {', '.join(REQUIRED)}"
    lines = read_table(path, REQUIRED, wanted, ManifestError)
    clips = [_clip(line, path) for line in lines]
    first: dict[Clip, int] = {}
    for clip, line in zip(clips, lines, strict=True):
        if clip in first:
            raise ManifestError(
                f"{path}, line {line.number}: the row of line {first[clip]} once more; a clip that "
                "stands twice would count twice. Leave one out."
            )
        first[clip] = line.number
    return clips


def _clip(row: CsvRow, manifest: Path) -> Clip:
    line = row.number

    def cell(column: str) -> str:
        return row.cells.get(column, "").strip()

    for column in REQUIRED:
        if not cell(column):
            raise ManifestError(f"{manifest}, line {line}: column {column} is empty.")
    duration: float | None = None
    if cell("duration_s"):
        try:
            duration = float(cell("duration_s"))
        except ValueError:
            duration = math.nan
        if not (math.isfinite(duration) and duration > 0):
            raise ManifestError(
                f"{manifest}, line {line}: column duration_s is {cell('duration_s')!r}; expected "
                "seconds above 0, or nothing."
            )
    return Clip(
        name=cell("path"),
        path=manifest.parent / cell("path"),
        domain=cell("domain"),
        label=cell("label"),
        split=cell("split"),
        group=cell("group"),
        duration_s=duration,
        licence=cell("licence"),
    )


def missing_audio(clips: Iterable[Clip]) -> list[Clip]:
    """The clips whose audio file does not exist."""
    return [clip for clip in clips if not clip.path.is_file()]


def require_audio(clips: Iterable[Clip]) -> None:
    """Raise ManifestError listing the audio files that do not exist, if there are any."""
    missing = missing_audio(clips)
    if missing:
        shown = "\n  ".join(str(clip.path) for clip in missing[:20])
        more = f"\n  … and {len(missing) - 20} more" if len(missing) > 20 else ""
        raise ManifestError(
            f"{len(missing)} audio files of the manifest do not exist; put them back or remove "
            f"their rows:\n  {shown}{more}"
        )


def cache_waveforms(
    clips: Sequence[Clip], cache_dir: str | Path, *, progress: bool = True
) -> WaveformCache:
    """Decode every clip once, under `cache_dir` (`palscope.datasets._decoded.decode_once`).

    Raises:
        ManifestError: audio files are missing (all are listed).
        AudioError: a file cannot be decoded.
    """
    require_audio(clips)
    return decode_once([clip.path for clip in clips], cache_dir, progress=progress)


class Waveforms(Protocol):
    """Anything that gives a clip's samples at 16 kHz."""

    def __getitem__(self, clip: Clip, /) -> Float[np.ndarray, " samples"]: ...


class DecodedOnDemand:
    """Samples read from the clip's file each time: for the few clips of an evaluation."""

    def __getitem__(self, clip: Clip) -> Float[np.ndarray, " samples"]:
        """The clip's samples. AudioError when the file cannot be decoded."""
        return load_audio(clip.path, sample_rate=SAMPLE_RATE).samples


@dataclass(frozen=True)
class Corpus:
    """A manifest's clips together with a way to their samples."""

    clips: tuple[Clip, ...]
    waveforms: Waveforms

    @classmethod
    def open(cls, manifest: str | Path, cache_dir: str | Path, *, progress: bool = True) -> Corpus:
        """Read the manifest and decode its clips (once) under `cache_dir`."""
        clips = read_manifest(manifest)
        return cls(tuple(clips), cache_waveforms(clips, cache_dir, progress=progress))

    def by_label(self, domain: str, split: str | None) -> dict[str, list[Clip]]:
        """The clips of one domain and split (None: of any), grouped by label in sorted order.

        Raises:
            ManifestError: there are none.
        """
        groups: dict[str, list[Clip]] = {}
        for clip in self.clips:
            if clip.domain == domain and split in (None, clip.split):
                groups.setdefault(clip.label, []).append(clip)
        if not groups:
            raise ManifestError(
                f"the manifest has no clips of domain {domain!r} in split {split!r}; it has "
                f"{sorted({(clip.domain, clip.split) for clip in self.clips})}"
            )
        return dict(sorted(groups.items()))

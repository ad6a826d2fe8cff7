"""Pairs of a user's own sound files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float

from palscope._files import CsvRow, read_table
from palscope.audio import Waveform, load_audio
from palscope.audio._compose import SAMPLE_RATE
from palscope.audio._waveform import Samples
from palscope.datasets._manifest import ManifestError
from palscope.errors import AudioError, PalscopeError
from palscope.pairs._pair import Pair, Segment, decibels, rms

KIND = "files"
"""The kind of a pair made of given files."""

MOST_PADDED = 0.25
"""The longer sound may be padded for by at most this share of its length."""

MOST_GAIN_DB = 20.0
"""The corrupt sound may be made louder or softer by at most this."""

_SAME_LEVEL_DB = 0.1  # closer ones are left as they are
_PAIR_COLUMNS = ("clean", "corrupt", "question", "clean_answer", "corrupt_answer")


def pair_from_files(
    clean: str | PathLike[str],
    corrupt: str | PathLike[str],
    question: str,
    clean_answer: str,
    corrupt_answer: str | None,
    segments: Sequence[Segment] | None = None,
) -> Pair:
    """A pair of two sound files, brought to one length and level.

    The shorter one is followed by silence up to the longer one's end. The corrupt one is scaled to
    the clean one's RMS: where the files are the same sample by sample outside of the segments that
    differ, within each of those segments, else as a whole. Levels closer than 0.1 dB are left
    alone. The pair's `changes` say what was done; its kind is `files`, its name the files' names.

    Args:
        clean: any sound file; channels are averaged, and the rate becomes 16 kHz.
        corrupt: likewise.
        question: what both are asked.
        clean_answer: right for the clean one.
        corrupt_answer: right for the corrupt one; None if unknown or the same.
        segments: what stands where; they may end with the shorter or the longer file (the last one
            then takes in the silence added). None: one segment, all of the clip.

    Raises:
        AudioError: a file cannot be read; the lengths differ by more than a quarter of the longer
            one, or the levels by more than 20 dB; one side is silent; or what `Pair` refuses.
        PalscopeError: what `Pair` refuses.
    """
    return _pair(
        Path(clean),
        Path(corrupt),
        (question, clean_answer, corrupt_answer),
        lambda end: tuple(segments) if segments is not None else (Segment("clip", 0.0, end, True),),
        _file_name(f"{Path(clean).stem}_{Path(corrupt).stem}"),
    )


def read_pairs(path: str | PathLike[str]) -> list[Pair]:
    """The pairs of a CSV, one a row; files are matched as by `pair_from_files`.

    Columns `clean`, `corrupt` (paths relative to the CSV's folder), `question`, `clean_answer`,
    `corrupt_answer` (may be empty), and, both or neither, `start_s` and `end_s`: the seconds in
    which the clips differ. With them the segments are `before`, `changed` and `after`; without,
    one, `clip`. Others are ignored. Names begin with the row's number.

    Raises:
        ManifestError: no such file, a column missing or given twice, a row with more or fewer
            cells than columns, or a cell empty or no number; the message names the file, the line
            and the column.
        AudioError: a pair's files cannot be used, see `pair_from_files`; names the line.
        PalscopeError: what else `Pair` refuses; names the line.
    """
    path = Path(path).absolute()
    wanted = f"a CSV with columns {', '.join(_PAIR_COLUMNS)}"
    lines = read_table(path, _PAIR_COLUMNS, wanted, ManifestError)
    return [_row(line, number, path) for number, line in enumerate(lines)]


def _row(row: CsvRow, number: int, path: Path) -> Pair:
    line = row.number
    cells = {name: text.strip() for name, text in row.cells.items()}
    for column in _PAIR_COLUMNS[:-1]:
        if not cells[column]:
            raise ManifestError(f"pairs {path}, line {line}: column {column} is empty")
    bounds = [cells.get(column, "") for column in ("start_s", "end_s")]
    try:
        changed = [float(text) for text in bounds] if any(bounds) else None
    except ValueError:
        raise ManifestError(
            f"pairs {path}, line {line}: start_s is {bounds[0]!r} and end_s {bounds[1]!r}; "
            "expected seconds in both, or nothing in either"
        ) from None
    clean, corrupt = path.parent / cells["clean"], path.parent / cells["corrupt"]
    try:
        return _pair(
            clean,
            corrupt,
            (cells["question"], cells["clean_answer"], cells["corrupt_answer"] or None),
            lambda end: _around(changed, end),
            _file_name(f"{number:03d}_{clean.stem}_{corrupt.stem}"),
        )
    except PalscopeError as error:
        raise type(error)(f"pairs {path}, line {line}: {error}") from error


def _around(changed: list[float] | None, end: float) -> tuple[Segment, ...]:
    """What differs, with what comes before and after it, in a clip of `end` seconds."""
    if changed is None:
        return (Segment("clip", 0.0, end, True),)
    if not 0 <= changed[0] < changed[1] <= end:
        raise AudioError(
            f"the clips differ from start_s {changed[0]:g} to end_s {changed[1]:g} s; expected a "
            f"stretch within the clip's {end:g} s."
        )
    bounds = {"before": (0.0, changed[0]), "changed": (changed[0], changed[1])}
    bounds["after"] = (changed[1], end)
    return tuple(Segment(name, a, b, name == "changed") for name, (a, b) in bounds.items() if a < b)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "pair"


# -- matching --------------------------------------------------------------------------------------


def _pair(
    clean_path: Path,
    corrupt_path: Path,
    asked: tuple[str, str, str | None],
    segments_until: Callable[[float], tuple[Segment, ...]],
    name: str,
) -> Pair:
    sounds = {path: load_audio(path).samples for path in (clean_path, corrupt_path)}
    clean, corrupt = sounds[clean_path], sounds[corrupt_path]
    for path, samples in sounds.items():
        if rms(samples) == 0:
            raise AudioError(
                f"{path} is silent; expected sound, for silence has no level to match. "
                "control(pair, 'silence') makes a pair with silence."
            )
    changes: list[str] = []
    lengths = [len(clean), len(corrupt)]
    clean = _padded(clean, lengths, "clean", clean_path, changes)
    corrupt = _padded(corrupt, lengths, "corrupt", corrupt_path, changes)
    segments = _to_the_end(segments_until(max(lengths) / SAMPLE_RATE), lengths)
    corrupt = _levelled(clean, corrupt, segments, corrupt_path, changes)
    question, clean_answer, corrupt_answer = asked
    return Pair(
        name=name,
        kind=KIND,
        question=question,
        clean=Waveform(clean, SAMPLE_RATE, str(clean_path)),
        corrupt=Waveform(corrupt, SAMPLE_RATE, str(corrupt_path)),
        clean_answer=clean_answer,
        corrupt_answer=corrupt_answer,
        segments=segments,
        changes=tuple(changes),
    )


def _padded(
    samples: Samples, lengths: Sequence[int], side: str, path: Path, changes: list[str]
) -> Float[np.ndarray, " longest"]:
    short = max(lengths) - len(samples)
    if short == 0:
        return samples
    if short > MOST_PADDED * max(lengths):
        raise AudioError(
            f"{path} lasts {len(samples) / SAMPLE_RATE:.2f} s, the other clip "
            f"{max(lengths) / SAMPLE_RATE:.2f} s; expected lengths that differ by at most "
            f"{MOST_PADDED:.0%} of the longer. Cut one, or add to the other."
        )
    changes.append(f"{side}: {short / SAMPLE_RATE:.3f} s of silence added at the end")
    return np.pad(samples, (0, short))


def _to_the_end(segments: tuple[Segment, ...], lengths: Sequence[int]) -> tuple[Segment, ...]:
    """The last segment of the shorter file takes in the silence that was added to it."""
    shorter, longer = min(lengths) / SAMPLE_RATE, max(lengths) / SAMPLE_RATE
    if not segments or abs(segments[-1].end - shorter) > 1 / SAMPLE_RATE:
        return segments
    last = segments[-1]
    return (*segments[:-1], Segment(last.name, last.start, longer, last.differs))


def _levelled(
    clean: Samples,
    corrupt: Samples,
    segments: Sequence[Segment],
    path: Path,
    changes: list[str],
) -> Samples:
    """`corrupt` at the level of `clean`: where they differ if the rest is the same, else all of it.

    A gain on all of an edited copy would undo that the rest is the same.
    """
    shared = [s.slice for s in segments if not s.differs]
    edited = bool(shared) and all(np.array_equal(clean[s], corrupt[s]) for s in shared)
    stretches = [s for s in segments if s.differs] if edited else [None]
    result = np.array(corrupt, dtype=np.float32)
    for stretch in stretches:
        place = stretch.slice if stretch else slice(None)
        before, target = rms(result[place]), rms(clean[place])
        name = f"segment {stretch.name!r}" if stretch else "the clip"
        if (before == 0) != (target == 0):
            raise AudioError(
                f"{path}: {name} is silent in one of the two files only; expected sound in both, "
                "at levels that can be matched."
            )
        gain_db = decibels(target) - decibels(before) if before else 0.0
        if abs(gain_db) > MOST_GAIN_DB:
            raise AudioError(
                f"{path}: {name} is {abs(gain_db):.1f} dB {'softer' if gain_db > 0 else 'louder'} "
                f"than in the clean file; expected at most {MOST_GAIN_DB:g} dB. Bring the files "
                "nearer to one level."
            )
        if abs(gain_db) > _SAME_LEVEL_DB:
            result[place] *= np.float32(target / before)
            changes.append(f"corrupt: {name} scaled by {gain_db:+.1f} dB")
    return result

"""Questions about sound, from OpenAQA's JSON or a CSV: read, checked, and what is unusable told.

A row that cannot be used is left out and counted, with the reason; where too many are, that is an
error. No row disappears silently.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from palscope._files import read_json, read_ragged_table, whole
from palscope.datasets._decoded import WaveformCache, decode_once
from palscope.errors import DataError
from palscope.training._recipe import Data

FIELDS = ("row", "audio", "question", "answer", "domain", "task", "split")
"""Columns of rows. `row` counts from 1 as the source does: a CSV's line, a JSON list's entry."""
REPORT = ("row", "audio", "reason", "detail")
"""Columns of the report on bad rows."""
HELD_OUT = "validation"

_log = logging.getLogger(__name__)


@dataclass
class SourceRows:
    """Rows of a source: those that are fit so far, and why others are not.

    `good` has the columns `FIELDS` (`audio` the file's path), `bad` the columns `REPORT`.
    """

    source: str
    good: pd.DataFrame
    bad: pd.DataFrame

    def decoded(self, data: Data, cache_dir: Path, *, workers: int = 1) -> WaveformCache:
        """Decode the sound of the good rows; those whose sound cannot be read become bad ones."""
        files: list[str] = list(dict.fromkeys(cast(Any, self.good)["audio"]))
        missing = {file for file in files if not Path(file).is_file()}
        self._leave_out(dict.fromkeys(missing, ("missing audio", "there is no such file")))
        cache = decode_once(
            [Path(file) for file in files if file not in missing],
            cache_dir,
            max_seconds=data.max_seconds,
            skip_bad=True,
            workers=workers,
        )
        self._leave_out({file: ("unreadable audio", why) for file, why in cache.bad.items()})
        if cache.cut:
            _log.warning(
                "%s: %d of %d sounds are longer than %g s and were cut.",
                self.source,
                len(cache.cut),
                len(cache),
                data.max_seconds,
            )
        return cache

    def _leave_out(self, files: Mapping[str, tuple[str, str]]) -> None:
        good: Any = self.good
        out = good["audio"].isin(list(files))
        lost: list[Any] = list(zip(good["row"][out], good["audio"][out], strict=True))
        told = _table([(row, audio, *files[audio]) for row, audio in lost], REPORT)
        self.bad = pd.concat([self.bad, told], ignore_index=True)
        self.good = good[~out].reset_index(drop=True)

    def report(self, file: Path, max_bad: float) -> None:
        """Write the bad rows to `file` as CSV, and log their number by reason.

        Raises:
            DataError: their share is above `max_bad`, or no row is left.
        """
        with whole(file) as part:
            self.bad.sort_values("row", kind="stable").to_csv(part, index=False)
        total = len(self.good) + len(self.bad)
        if len(self.bad):
            reasons = self.bad["reason"].value_counts()
            told = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            told = f"{self.source}: {len(self.bad)} of {total} rows left out ({told}); see {file}."
            _log.warning(told)
            if len(self.bad) > max_bad * total:
                raise DataError(
                    f"{told} That is more than data.max_bad = {max_bad:g} allows; mend the rows, "
                    "or raise it."
                )
        if not len(self.good):
            raise DataError(f"{self.source}: there is no row to train on.")

    def split_off(self, data: Data, count: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Rows to train on, and up to `count` held out of training.

        Those are of split `validation` where rows have splits; else some are taken, and every row
        about their sound leaves training.
        """
        good: Any = self.good
        train = good[good["split"].isin(["", data.split])]
        rng = np.random.default_rng(seed)
        held = good[good["split"] == HELD_OUT]
        if held.empty or data.split == HELD_OUT:
            held = train
        if held["audio"].nunique() <= count:
            held = held.iloc[:0]  # so few that none can be spared
        held = held.iloc[np.sort(rng.permutation(len(held))[:count])]
        train = train[~train["audio"].isin(held["audio"])]
        if not len(train):
            raise DataError(
                f"{self.source}: no row is of split {data.split!r}; there are "
                f"{sorted(good['split'].unique())}. Set data.split."
            )
        return train.reset_index(drop=True), held.reset_index(drop=True)


def read_rows(data: Data, source: Path, audio: Path | None) -> SourceRows:
    """Rows of a file in `data.format`.

    Args:
        data: the format, its columns and limits.
        source: the file.
        audio: folder of the sound files; by default the file's own.

    Raises:
        DataError: the file is missing, not of that format, or lacks a column.
    """
    if not source.is_file():
        raise DataError(f"{source}: no such file; expected questions in format {data.format}.")
    folder = source.parent if audio is None else audio
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the sound files of {source.name}.")
    if data.format == "openaqa":
        return _read_openaqa(source, folder, data)
    return _read_csv(source, folder, data)


def why_unfit(question: str, answer: str, data: Data) -> tuple[str, str] | None:
    """Reason and detail when a row's text cannot be used, else None."""
    if not question.strip():
        return "empty question", ""
    if not answer.strip():
        return "empty answer", ""
    if (length := len(question) + len(answer)) > data.max_characters:
        return "text too long", f"{length} characters, allowed are {data.max_characters}"
    return None


# --- CSV ------------------------------------------------------------------------------------------


def _read_csv(source: Path, folder: Path, data: Data) -> SourceRows:
    named = {"audio": "path"} | data.columns
    columns = {field: named.get(field, field) for field in FIELDS[1:]}
    required = [columns[field] for field in ("audio", "question", "answer")]
    wanted = f"a CSV with columns {', '.join(required)} (name others in data.columns)"
    lines, ragged = read_ragged_table(source, required, wanted, DataError)
    entries: dict[int, dict[str, str] | str] = dict(ragged)
    for number, cells in lines:
        # Those alone: another column may bear the name of a field.
        entries[number] = {f: cells[theirs] for f, theirs in columns.items() if theirs in cells}
    return _checked(
        str(source),
        (
            (number, entry, "" if isinstance(entry, str) else _under(folder, entry["audio"]))
            for number, entry in sorted(entries.items(), key=lambda each: each[0])
        ),
        data,
    )


def _under(folder: Path, name: str) -> str | tuple[str, str]:
    return str(folder / name) if name.strip() else ("missing audio", "no file is named")


# --- OpenAQA --------------------------------------------------------------------------------------


def _read_openaqa(source: Path, folder: Path, data: Data) -> SourceRows:
    """A list of `{instruction, input, audio_id, dataset, task, output}` (LTU, arXiv 2305.10790)."""
    entries = read_json(source, "OpenAQA's questions", DataError)
    if not isinstance(entries, list):
        raise DataError(f"{source}: expected a list of objects, found a {type(entries).__name__}.")
    files = AudioFolder(folder)
    return _checked(
        str(source),
        (_openaqa_row(number, entry, files) for number, entry in enumerate(entries, 1)),  # pyright: ignore[reportUnknownArgumentType]
        data,
    )


def _openaqa_row(
    number: int, entry: Any, files: AudioFolder
) -> tuple[int, dict[str, str] | str, str | tuple[str, str]]:
    if not isinstance(entry, dict):
        return number, f"a {type(entry).__name__}, not an object", ""
    given = cast("dict[str, Any]", entry)
    for name in ("instruction", "audio_id", "output"):
        if not isinstance(given.get(name), str):
            return number, f"no text under {name!r}", ""
    question, more = given["instruction"].strip(), str(given.get("input") or "").strip()
    row = {
        "audio": given["audio_id"],
        "question": f"{question}\n\n### Input:\n{more}" if question and more else question,
        "answer": given["output"].strip(),
        "domain": str(given.get("dataset") or ""),
        "task": str(given.get("task") or ""),
    }
    return number, row, files.find(given["audio_id"])


class AudioFolder:
    """Sound files below a folder, found by an id: a path elsewhere, a file's name, or its stem."""

    def __init__(self, folder: Path) -> None:
        self._by_stem: dict[str, list[Path]] = {}
        for file in sorted(folder.rglob("*")):
            if not file.is_dir():
                self._by_stem.setdefault(file.stem, []).append(file)

    def find(self, audio_id: str) -> str | tuple[str, str]:
        """The file's path; else a reason and a detail.

        Of several files of one name, the one whose folders and ending agree most with the id's.
        """
        wanted = Path(audio_id.strip())
        name = wanted.name
        # An id may hold dots without having an ending: "Y1.5abc".
        found = self._by_stem.get(wanted.stem, []) + (
            self._by_stem.get(name, []) if name != wanted.stem else []
        )
        if not name or not found:
            return "missing audio", f"no file is called {name!r}"
        agreement = [_agreement(file, wanted) for file in found]
        best = [file for file, n in zip(found, agreement, strict=True) if n == max(agreement)]
        if len(best) > 1:
            return "ambiguous audio", f"{best[0]} and {best[1]} are both called so"
        return str(best[0])


def _agreement(file: Path, wanted: Path) -> tuple[int, int]:
    """How many folders above agree in turn, then whether the whole name does."""
    above = 0
    for one, other in zip(reversed(file.parts[:-1]), reversed(wanted.parts[:-1]), strict=False):
        if one != other:
            break
        above += 1
    return above, int(file.name == wanted.name)


# --- what both share ------------------------------------------------------------------------------


def _checked(
    source: str,
    entries: Iterable[tuple[int, Mapping[str, str] | str, str | tuple[str, str]]],
    data: Data,
) -> SourceRows:
    """Rows with their file, or what is wrong with an entry or its sound."""
    good: list[tuple[Any, ...]] = []
    bad: list[tuple[Any, ...]] = []
    for number, entry, file in entries:
        if isinstance(entry, str):
            bad.append((number, "", "malformed row", entry))
            continue
        why = why_unfit(entry["question"], entry["answer"], data)
        if why is None and not isinstance(file, str):
            why = file
        if why is not None:
            bad.append((number, entry["audio"], *why))
            continue
        labels = (entry.get(name, "").strip() for name in ("domain", "task", "split"))
        good.append((number, file, entry["question"].strip(), entry["answer"].strip(), *labels))
    return SourceRows(source, _table(good, FIELDS), _table(bad, REPORT))


def _table(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))

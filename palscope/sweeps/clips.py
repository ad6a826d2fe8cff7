"""A measure over many clips: a file of results for each, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import pyarrow.parquet as parquet  # pyright: ignore[reportMissingTypeStubs]
from tqdm.auto import tqdm

from palscope.errors import AudioError, PalscopeError

SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")


@dataclass(frozen=True)
class Done:
    """A clip and the parquet file that holds its results."""

    path: Path
    results: Path


@dataclass(frozen=True)
class Failure:
    """A clip that could not be used, and why."""

    path: Path
    error: str


def sound_files(folder: Path) -> list[Path]:
    """The sound files in a folder and the folders in it, sorted.

    Raises:
        AudioError: there are none.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SOUND_ENDINGS and path.is_file()
    )
    if not found:
        raise AudioError(f"{folder} holds no sound file ({', '.join(SOUND_ENDINGS)}).")
    return found


def over_clips(
    paths: Sequence[Path],
    measure: Callable[[Path], pd.DataFrame],
    folder: Path,
    *,
    settings: Mapping[str, Any],
    progress: bool = True,
) -> tuple[list[Done], list[Failure]]:
    """Measure every clip once, and keep its table in `folder`.

    Args:
        paths: sound files; one that is named twice is measured once.
        measure: gives a clip's table; `PalscopeError` says that the clip cannot be used.
        settings: plain data that decides the results beside the clip (weights, question, route).
            A clip is measured again when they, or the file, have changed.
        progress: show a bar.

    Returns:
        What was measured, now or before, and what could not be, both in the order of `paths`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: list[Done] = []
    failures: list[Failure] = []
    for path in tqdm(list(dict.fromkeys(paths)), unit="clip", disable=not progress):
        results = folder / f"{_fingerprint(path, settings)}.parquet"
        try:
            if not results.is_file():
                _write(measure(path), results)
            done.append(Done(path, results))
        except PalscopeError as error:
            failures.append(Failure(path, str(error)))
    return done, failures


def merge(done: Sequence[Done], target: Path) -> None:
    """Write the results of all clips to one parquet file, a clip at a time."""
    part = target.with_name(f"{target.name}.part")
    reader: Any = cast(Any, parquet).read_table
    with cast(Any, parquet).ParquetWriter(part, reader(done[0].results).schema) as writer:
        for each in done:
            writer.write_table(reader(each.results))
    os.replace(part, target)


def _fingerprint(path: Path, settings: Mapping[str, Any]) -> str:
    """Names a clip's results: they are another's when the file or the settings change."""
    state = [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []
    about = json.dumps([str(path.absolute()), state, dict(settings)], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:20]


def _write(table: pd.DataFrame, target: Path) -> None:
    """All or nothing: a run that is killed leaves no half file under the final name."""
    part = target.with_suffix(f".{os.getpid()}.part")
    cast(Any, table).to_parquet(part, index=False)
    os.replace(part, target)

"""The notes of a music clip, from the table beside it."""

from __future__ import annotations

import re
from pathlib import Path

from palscope._files import read_table
from palscope.datasets._manifest import Clip, ManifestError

NOTES_FILE = "notes.csv"

Notes = tuple[tuple[float, float], ...]
"""Start and end of each note, in seconds of the clip's file."""


def notes_of(clip: Clip) -> Notes:
    """When each note of a clip is played, from `notes.csv` in the clip's folder; empty without it.

    Two forms are read: a row a note (`path` or `file`, `start_s`, `end_s`), as bundled with the
    package, and a row a clip (`file` and a column whose name begins with `notes`, which holds
    `start-end:pitch` for each note, separated by spaces).

    Raises:
        ManifestError: the table has neither form, or times that are no numbers or no stretch.
    """
    table = clip.path.parent / NOTES_FILE
    if not table.is_file():
        return ()
    wanted = "the notes of clips: columns path,start_s,end_s, or file and notes"
    lines = read_table(table, (), wanted, ManifestError)
    if not {"file", "path"} & lines[0].cells.keys():
        found = ", ".join(lines[0].cells)
        raise ManifestError(f"{table}: no column file or path; expected {wanted}; found {found}.")
    rows = [
        row
        for _, row in lines
        if Path(row.get("file") or row.get("path") or "").name == clip.path.name
    ]
    try:
        spans = [span for row in rows for span in _spans(row)]
    except (KeyError, ValueError) as error:
        raise ManifestError(
            f"{table}, {clip.path.name}: no note times could be read ({error}); expected columns "
            "path,start_s,end_s, or file and 'notes' as start-end:pitch"
        ) from error
    if wrong := [span for span in spans if not 0 <= span[0] < span[1] < float("inf")]:
        raise ManifestError(
            f"{table}, {clip.path.name}: a note from {wrong[0][0]:g} to {wrong[0][1]:g} s; "
            "expected seconds from 0 on, the start before the end."
        )
    return tuple(sorted(spans))


def _spans(row: dict[str, str]) -> list[tuple[float, float]]:
    packed = next((text for name, text in row.items() if name.startswith("notes")), None)
    if packed is None:
        return [(float(row["start_s"]), float(row["end_s"]))]
    spans: list[tuple[float, float]] = []
    for note in packed.split():
        match = re.fullmatch(r"([\d.]+)-([\d.]+):\d+", note)
        if match is None:
            raise ValueError(f"{note!r} is no start-end:pitch")
        spans.append((float(match[1]), float(match[2])))
    return spans

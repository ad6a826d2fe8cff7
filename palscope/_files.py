"""Files of a user's: read and written with one sentence for whatever goes wrong.

Whoever reads a table, settings or a record, or writes a result, does it through here: a file that
is cut, is something else, or does not fit on the disk is told by name, with what was expected.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from palscope.errors import PalscopeError

LARGEST_TEXT = 1 << 30
"""Bytes: a larger file is no table, settings or record."""
LARGEST_SETTINGS = 1 << 24
"""Bytes of a file of settings."""


def read_text(
    path: Path, wanted: str, error: type[PalscopeError], *, largest: int = LARGEST_TEXT
) -> str:
    """A UTF-8 text, without its byte order mark.

    Args:
        path: the file.
        wanted: what it should be, for the message.
        error: what is raised.
        largest: bytes that it may have.

    Raises:
        error: it is missing, no file, unreadable, too large or not UTF-8.
    """
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "no such file"
        raise error(f"{path}: {there}; expected {wanted}.")
    try:
        if (size := path.stat().st_size) > largest:
            raise error(f"{path}: {size / 1e6:.0f} MB; expected {wanted}.")
        # Bytes, not text mode: what a line's end within a quoted cell is, the file says.
        raw = path.read_bytes()
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror or reason}.") from reason
    if (pretends := what_else(raw[:200])) is not None:
        raise error(f"{path} {pretends}; expected {wanted}. Fetch the file itself.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(
            f"{path}: not UTF-8 text ({reason}); expected {wanted}. Save it as UTF-8."
        ) from None


def what_else(begins: bytes) -> str | None:
    """What a file is that stands where another was to be: a pointer of Git LFS, or a web page."""
    start = begins.lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file (git lfs pull fetches it)"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "is a web page, not the file"
    return None


def read_json(
    path: Path, wanted: str, error: type[PalscopeError], *, largest: int = LARGEST_TEXT
) -> Any:
    """What a JSON file says.

    Raises `error` as `read_text`, and where it is no JSON.
    """
    return parse_json(read_text(path, wanted, error, largest=largest), str(path), wanted, error)


def parse_json(text: str, where: str, wanted: str, error: type[PalscopeError]) -> Any:
    """What a JSON text says; `where` names it. Raises `error` where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as reason:  # ValueError: numbers of thousands of digits
        told = "nested too deeply" if isinstance(reason, RecursionError) else reason
        raise error(
            f"{where}: not valid JSON ({told}); expected {wanted}. Is it cut short?"
        ) from None


def read_object(
    path: Path, wanted: str, error: type[PalscopeError], *, largest: int = LARGEST_SETTINGS
) -> dict[str, Any]:
    """The object that a JSON file holds. Raises `error` as `read_json`, and where it holds none."""
    read = read_json(path, wanted, error, largest=largest)
    if not isinstance(read, dict):
        raise error(f"{path}: a {type(read).__name__}; expected {wanted}, a JSON object.")
    return cast("dict[str, Any]", read)


# -- tables ----------------------------------------------------------------------------------------


class CsvRow(NamedTuple):
    """A row of a CSV: the `number` of the file's line it ends in, and its `cells` by column."""

    number: int
    cells: dict[str, str]


def read_table(
    path: Path, required: Sequence[str], wanted: str, error: type[PalscopeError]
) -> list[CsvRow]:
    """The rows of a CSV with a header; empty lines are passed over.

    Raises:
        error: as `read_text`; a column is missing or stands twice, a row has more or fewer cells
            than the header (a comma that should stand in quotes), or there is no row.
    """
    lines, ragged = read_ragged_table(path, required, wanted, error)
    if ragged:
        number, told = next(iter(ragged.items()))
        raise error(f"{path}, line {number}: {told}")
    if not lines:
        raise error(f"{path}: it has a header but no rows; expected {wanted}.")
    return lines


def read_ragged_table(
    path: Path, required: Sequence[str], wanted: str, error: type[PalscopeError]
) -> tuple[list[CsvRow], dict[int, str]]:
    """The rows that are whole, and what is wrong with the others, by line.

    Raises `error` as `read_table` does for what is not a matter of one row.
    """
    reader = csv.reader(io.StringIO(read_text(path, wanted, error), newline=""), strict=True)
    lines: list[CsvRow] = []
    ragged: dict[int, str] = {}
    try:
        columns = [name.strip() for name in next(reader, list[str]())]
        _check_columns(path, columns, required, wanted, error)
        for cells in reader:
            if not cells or (len(columns) > 1 and len(cells) == 1 and not cells[0].strip()):
                continue
            if len(cells) == len(columns):
                lines.append(CsvRow(reader.line_num, dict(zip(columns, cells, strict=True))))
            else:
                ragged[reader.line_num] = (
                    f"{len(cells)} cells, but the header has {len(columns)} columns; put a cell "
                    "that holds a comma in quotes, and leave no cell out."
                )
    except csv.Error as reason:
        raise error(
            f"{path}, line {reader.line_num}: not a CSV file ({reason}); expected {wanted}."
        ) from None
    return lines, ragged


def _check_columns(
    path: Path,
    columns: Sequence[str],
    required: Sequence[str],
    wanted: str,
    error: type[PalscopeError],
) -> None:
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise error(f"{path}: column {', '.join(twice)} stands twice; leave one out.")
    if absent := [name for name in required if name not in columns]:
        other = next((mark for mark in ";\t|" if len(columns) == 1 and mark in columns[0]), None)
        told = "" if other is None else f" Cells stand apart by {other!r} here: by commas, please."
        raise error(
            f"{path}: column {', '.join(absent)} missing; expected {wanted}; found "
            f"{', '.join(columns) or 'nothing'}.{told}"
        )


# -- writing ---------------------------------------------------------------------------------------


@contextmanager
def writing(path: str | os.PathLike[str]) -> Generator[None, None, None]:
    """Within, what cannot be written to `path` becomes one sentence.

    Raises `PalscopeError` for an `OSError`, and for what torch and safetensors make of one.
    """
    try:
        yield
    except PalscopeError:
        raise
    except Exception as error:
        if (why := why_not_written(error)) is None:
            raise
        raise PalscopeError(
            f"{os.fspath(path)} cannot be written: {why}. What stood there before is whole."
        ) from error


def why_not_written(error: Exception) -> str | None:
    """Why a file could not be written, and what to do; None for an error of another kind."""
    number = getattr(error, "errno", None)
    told = str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in told or "os error 28" in told:
        return "no space is left on the disk; free some, or give another folder"
    # torch's zip writer does not hand on the reason.
    torchs = ("PytorchStreamWriter", "inline_container", "file write")
    if isinstance(error, RuntimeError) and any(name in told for name in torchs):
        return "the disk is full or failed; free some space, or give another folder"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "it may not be written to; give another folder, or change its permissions"
    if number in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return "a file stands where a folder should, or a folder where a file; give another name"
    # pyarrow's have a number too; a lock that is held has none.
    return (error.strerror or told) if isinstance(error, OSError) and number is not None else None


def make_folder(folder: Path) -> None:
    """Make a folder where there is none. Raises `PalscopeError` where that cannot be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def whole(path: Path) -> Generator[Path, None, None]:
    """Within, the file to write in place of `path`, where it then appears, all or nothing.

    Raises `PalscopeError` where it cannot be written; then nothing of it is left.
    """
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            # What there is of it takes up room on a disk that is full.
            part.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text, all or nothing. Raises `PalscopeError` where it cannot be written."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, data: Any) -> None:
    """Write plain data, all or nothing. Raises `PalscopeError` where it cannot be written."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV with a header, all or nothing. Raises `PalscopeError` where it cannot be."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())

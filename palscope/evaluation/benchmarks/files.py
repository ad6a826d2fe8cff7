"""Rows of question and prediction files. Errors name the file, the row and the field."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from palscope.errors import BenchmarkError

Row = Mapping[str, Any]


def read_json_rows(path: Path) -> list[Row]:
    """The objects of a JSON list, or of a file with one JSON object a line.

    Which of the two it is, is told from the file, not from its name.

    Raises:
        BenchmarkError: no such file, not UTF-8 JSON of either form, a row that is no object, or no
            row at all.
    """
    text = _text(path)
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise BenchmarkError(
                f"{path}: not valid JSON ({error}); fetch the file again."
            ) from None
    else:
        rows = list(_lines(path, text))
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BenchmarkError(
                f"{path}, row {number}: expected an object with the fields of a question, got "
                f"{type(row).__name__}."
            )
    if not rows:
        raise BenchmarkError(f"{path}: it has no rows.")
    return cast("list[Row]", rows)


def read_csv_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """The rows of a CSV file with a header.

    Args:
        path: the file.
        required: the columns that it must have.

    Raises:
        BenchmarkError: no such file, not UTF-8 CSV, a column missing, or no rows.
    """
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or ())
        absent = [column for column in required if column not in columns]
        if absent:
            raise BenchmarkError(
                f"{path}: column {', '.join(absent)} missing; expected {', '.join(required)}, "
                f"found {', '.join(columns) or 'nothing'}."
            )
        rows = list(reader)
    except csv.Error as error:
        raise BenchmarkError(f"{path}, line {reader.line_num}: not a CSV file ({error}).") from None
    if not rows:
        raise BenchmarkError(f"{path}: it has a header but no rows.")
    return cast("list[Row]", rows)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without their ends.

    Raises:
        BenchmarkError: no such file, not UTF-8, or no line.
    """
    lines = [line.rstrip("\r\n") for line in _text(path).split("\n") if line.strip()]
    if not lines:
        raise BenchmarkError(f"{path}: it has no lines.")
    return lines


def text_field(path: Path, number: int, row: Row, field: str) -> str:
    """A field that must hold text (a number is taken as its digits).

    Args:
        path: the file, for the error.
        number: the row's, from 1.
        row: the row.
        field: its name.

    Raises:
        BenchmarkError: the field is missing, empty or something else.
    """
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        found = "is missing" if field not in row else f"is {value!r}"
        raise BenchmarkError(f"{path}, row {number}: field {field} {found}; expected text.")
    return value


def category(row: Row, field: str) -> str:
    """A field that sorts rows, as text: a list's entries joined, nothing where there is none."""
    value = row.get(field)
    if isinstance(value, list):
        return ", ".join(str(each) for each in cast("list[Any]", value))
    return "" if value is None else str(value)


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_json_list(path: Path, rows: Iterable[Row]) -> None:
    """A JSON list."""
    text = json.dumps(list(rows), ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A CSV file with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _text(path: Path) -> str:
    if not path.is_file():
        raise BenchmarkError(f"{path}: no such file; give the benchmark's file.")
    try:
        # Bytes, not text mode: what a line's end within a quoted cell is, the file says.
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{path}: not UTF-8 text ({error}).") from None


def _lines(path: Path, text: str) -> Iterator[Any]:
    # Not splitlines: JSON text may hold a line separator (U+2028) that is no end of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise BenchmarkError(
                    f"{path}, line {number}: not a JSON object ({error}); is it cut short?"
                ) from None

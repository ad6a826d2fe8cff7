"""Rows of question and prediction files. Errors name the file, the row and the field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from palscope._files import parse_json, read_table, read_text, write_text
from palscope.errors import BenchmarkError

JsonRow = Mapping[str, Any]

_WANTED = "questions as a JSON list, or as JSON objects, one a line"


def read_json_rows(path: Path) -> list[JsonRow]:
    """The objects of a JSON list, or of a file with one JSON object a line.

    Which of the two it is, is told from the file, not from its name.

    Raises:
        BenchmarkError: no such file, not UTF-8 JSON of either form, a row that is no object, or no
            row at all.
    """
    text = _text(path)
    if text.lstrip().startswith("["):
        rows = parse_json(text, str(path), _WANTED, BenchmarkError)
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
    return cast("list[JsonRow]", rows)


def read_csv_rows(path: Path, required: Sequence[str]) -> list[tuple[int, JsonRow]]:
    """The rows of a CSV file with a header, each with the number of its line.

    Args:
        path: the file.
        required: the columns that it must have.

    Raises:
        BenchmarkError: no such file, not UTF-8 CSV, a column missing or given twice, a row with
            more or fewer cells than columns, or no rows.
    """
    wanted = f"a CSV with columns {', '.join(required)}"
    return [(number, row) for number, row in read_table(path, required, wanted, BenchmarkError)]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers, without their ends.

    Raises:
        BenchmarkError: no such file, not UTF-8, or no line.
    """
    numbered = enumerate(_text(path).split("\n"), 1)
    lines = [(number, line.rstrip("\r\n")) for number, line in numbered if line.strip()]
    if not lines:
        raise BenchmarkError(f"{path}: it has no lines.")
    return lines


def text_field(path: Path, number: int, row: JsonRow, field: str) -> str:
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


def answer_field(
    path: Path, number: int, row: JsonRow, field: str, *, withheld: bool
) -> tuple[str, ...]:
    """The answer of a row; nothing where the file's answers are `withheld`.

    Raises `BenchmarkError` as `text_field`.
    """
    return () if withheld else (text_field(path, number, row, field),)


def are_withheld(rows: Iterable[JsonRow], field: str) -> bool:
    """Whether no row says its answer, as in a test set whose answers are kept from the public.

    Where some do, one that does not is damaged, and told as such.
    """
    return all(row.get(field) is None or row.get(field) == "" for row in rows)


def category(row: JsonRow, field: str) -> str:
    """A field that sorts rows, as text: a list's entries joined, nothing where there is none."""
    value = row.get(field)
    if isinstance(value, list):
        return ", ".join(str(each) for each in cast("list[Any]", value))
    return "" if value is None else str(value)


def write_json_lines(path: Path, rows: Iterable[JsonRow]) -> None:
    """One JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_json_list(path: Path, rows: Iterable[JsonRow]) -> None:
    """A JSON list."""
    text = json.dumps(list(rows), ensure_ascii=False, indent=1)
    write_text(path, text + "\n")


def _text(path: Path) -> str:
    return read_text(path, "the benchmark's file", BenchmarkError)


def _lines(path: Path, text: str) -> Iterator[Any]:
    # Not splitlines: JSON text may hold a line separator (U+2028) that is no end of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield parse_json(line, f"{path}, line {number}", _WANTED, BenchmarkError)

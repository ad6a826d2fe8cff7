"""Tables and JSON of a user's: what is written comes back, and what is damaged is told by name."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palscope import _files as files
from palscope._files import read_json, read_object, read_table, write_table
from palscope.datasets._manifest import Clip, read_manifest
from palscope.errors import DataError, PalscopeError
from palscope.evaluation._benchmarks.registry import BENCHMARKS
from palscope.pairs import read_pairs
from palscope.pairs._notes import notes_of
from palscope.training._recipe import Data
from palscope.training._rows import read_rows

few = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = ("one", "two", "three")
# Anything that a spreadsheet may hold, ends of lines within a cell and quotes among it.
cells = st.text("a ,;'\"\n\u2028é", max_size=4) | (
    st.sampled_from(["a, b", 'say "no"', "two\nlines", " spaced ", ";", "NA", "ünï", ""])
)
tables = st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5)


def read(path: Path) -> list[tuple[str, ...]]:
    lines = read_table(path, COLUMNS, "three columns", DataError)
    return [tuple(row.values()) for _, row in lines]


@few
@given(rows=tables, bom=st.booleans(), end=st.sampled_from(["\r\n", "\n"]), blank=st.booleans())
def test_a_table_comes_back(
    tmp_path: Path, rows: list[tuple[str, str, str]], bom: bool, end: str, blank: bool
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(f" {name} " for name in COLUMNS)  # as some spreadsheets write names
    for row in rows:
        writer.writerow(row)
        text.write(end if blank else "")
    raw = text.getvalue().encode("utf-8-sig" if bom else "utf-8")
    (tmp_path / "t.csv").write_bytes(raw)
    assert read(tmp_path / "t.csv") == rows
    write_table(tmp_path / "u.csv", COLUMNS, rows)
    assert read(tmp_path / "u.csv") == rows


@few
@given(rows=tables, at=st.integers(0, 4), more=st.booleans(), cell=cells)
def test_a_row_of_another_length_is_told_by_its_line(
    tmp_path: Path, rows: list[tuple[str, ...]], at: int, more: bool, cell: str
) -> None:
    at = at % len(rows)
    torn = (*rows[at], cell) if more else rows[at][:-1]
    write_table(tmp_path / "t.csv", COLUMNS, [*rows[:at], torn, *rows[at + 1 :]])
    before = (tmp_path / "t.csv").read_bytes().decode()
    with pytest.raises(DataError, match=rf"line \d+: {len(torn)} cells, but the header has 3"):
        read(tmp_path / "t.csv")
    assert str(tmp_path) not in before


@pytest.mark.parametrize("codec", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_is_told(tmp_path: Path, codec: str) -> None:
    (tmp_path / "t.csv").write_bytes("one,two,three\nä,b,c\n".encode(codec))
    with pytest.raises(DataError, match=r"t\.csv: not UTF-8 text"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_delimiter_is_told(tmp_path: Path, mark: str) -> None:
    (tmp_path / "t.csv").write_text(mark.join(COLUMNS) + "\n" + mark.join("abc") + "\n")
    with pytest.raises(DataError, match=r"t\.csv: column one, two, three missing.*by commas"):
        read(tmp_path / "t.csv")


# -- every entrance --------------------------------------------------------------------------------


def benchmark(name: str) -> Callable[[Path], Any]:
    return BENCHMARKS[name].read_questions


def rows_of(path: Path) -> None:
    made = read_rows(Data(format="csv"), path, None)
    if len(made.bad):  # told in the report, with its line
        bad = made.bad.iloc[0]
        raise DataError(f"{path}, line {bad['row']}: {bad['reason']}, {bad['detail']}")


def notes(path: Path) -> None:
    path.rename(path.with_name("notes.csv"))
    notes_of(Clip("a.wav", path.with_name("a.wav"), "music", "piano"))


READERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "manifest": (read_manifest, "path,domain,label", "a.wav,sound,dog"),
    "pairs": (read_pairs, "clean,corrupt,question,clean_answer,corrupt_answer", "a,b,q,x,y"),
    "notes": (notes, "path,start_s,end_s", "a.wav,0,1"),
    "rows": (rows_of, "path,question,answer", "a.wav,q,x"),
    "own": (benchmark("csv"), "audio,question,answer", "a.wav,q,x"),
    "esc50": (benchmark("esc50"), "filename,fold,category,esc10", "a.wav,1,dog,True"),
    "audiocaps": (benchmark("audiocaps"), "youtube_id,start_time,caption", "a,0,rain"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", ["comma", "short", "twice", "delimiter", "binary", "folder"])
def test_every_reader_of_a_table_tells_damage(tmp_path: Path, name: str, damage: str) -> None:
    reader, header, row = READERS[name]
    last = header.rpartition(",")[2]
    path = tmp_path / "table.csv"
    raw = {
        "comma": f"{header}\n{row}, and more\n",
        "short": f"{header}\n{row.rpartition(',')[0]}\n",
        "twice": f"{header},{last}\n{row},other\n",
        "delimiter": f"{header}\n{row}\n".replace(",", ";"),
        "binary": "\0\1\2",
    }
    if damage == "folder":
        path.mkdir()
    else:
        path.write_text(raw[damage])
    if (name, damage) == ("notes", "folder"):
        notes(path)  # no such table: no notes
        return
    with pytest.raises(PalscopeError) as raised:
        reader(path)
    told = str(raised.value)
    assert ".csv" in told
    assert {"comma": "line 2", "short": "line 2", "twice": f"column {last} stands twice"}.get(
        damage, ""
    ) in told


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a": 1',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xff\xfe{}",
        b"<!DOCTYPE html><html></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    ],
)
def test_what_is_no_json_is_told(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.json.*expected settings"):
        read_json(tmp_path / "x.json", "settings", DataError)


def test_an_object_is_one(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match="a list; expected settings, a JSON object"):
        read_object(tmp_path / "x.json", "settings", DataError)
    (tmp_path / "x.json").write_text(json.dumps({"a": "b" * 100}))
    with pytest.raises(DataError, match="expected settings"):
        read_object(tmp_path / "x.json", "settings", DataError, largest=50)


# -- writing ---------------------------------------------------------------------------------------


def writers() -> Sequence[Callable[[Path], None]]:
    return [
        lambda path: files.write_json(path, {"a": 1}),
        lambda path: files.write_text(path, "text"),
        lambda path: write_table(path, ["a"], [["1"]]),
    ]


@pytest.mark.parametrize("write", writers())
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_text("before")

    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        with self.open("w") as file:
            file.write("hal")
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(PalscopeError, match=r"x cannot be written: no space is left"):
        write(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "before"


@pytest.mark.parametrize("write", [*writers(), lambda path: files.make_folder(path)])
def test_a_file_in_a_folders_place(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PalscopeError, match="a file stands where a folder should"):
        write(tmp_path / "file" / "x")

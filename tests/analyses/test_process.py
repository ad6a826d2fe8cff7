"""What scripts say where their results cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from palscope.analyses._process import call, check_out
from palscope.errors import PalscopeError


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_in_the_results_place_is_told_before_anything_is_done(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert call(lambda: pytest.fail("was begun"), tmp_path / place) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is a file; give a folder" in told and told.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_fills_up_under_a_script_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "table.csv"))

    assert call(full, tmp_path) == 2
    told = capsys.readouterr().err
    assert "table.csv: no space is left" in told and "--resume" in told and told.count("\n") == 1


def test_a_folder_that_may_not_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, how: Path(place) != tmp_path)  # root may all
    with pytest.raises(PalscopeError, match="may not be written to; give another folder"):
        check_out(tmp_path / "new" / "run")
    check_out(None)

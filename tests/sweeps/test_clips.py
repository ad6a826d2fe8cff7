"""Sound files that a command line names."""

from __future__ import annotations

from pathlib import Path

import pytest

from palscope._sweeps.clips import sound_files
from palscope.errors import AudioError


def test_folders_are_searched_for_sound(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "a.mp3", "deep/x.FLAC", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in sound_files(tmp_path)] == ["a.mp3", "b.wav", "x.FLAC"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="empty holds no sound file"):
        sound_files(tmp_path / "empty")

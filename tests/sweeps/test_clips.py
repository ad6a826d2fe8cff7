"""A measure over many clips: resumed, repeated only where something changed, failures apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palscope.errors import AudioError
from palscope.sweeps.clips import merge, over_clips, sound_files


class Counting:
    """A measure that counts its calls, and cannot use files with "bad" in their names."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, path: Path) -> pd.DataFrame:
        self.calls.append(path.name)
        if "bad" in path.name:
            raise AudioError(f"{path} is bad.")
        kind = pd.Categorical([path.name[0]], categories=["a", "b", "c"])
        return pd.DataFrame({"path": [str(path)], "kind": kind, "mass": [path.stat().st_size]})


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.wav", "bad.wav", "c.wav")]
    for path in paths:
        path.write_bytes(b"x")
    return paths


def test_what_is_done_is_not_done_again(clips: list[Path], tmp_path: Path) -> None:
    measure = Counting()
    run: Any = {"folder": tmp_path / "out", "settings": {"q": 1}, "progress": False}
    done, failures = over_clips([*clips, clips[0]], measure, **run)
    assert measure.calls == ["a.wav", "bad.wav", "c.wav"]
    assert [each.path.name for each in done] == ["a.wav", "c.wav"]
    assert [each.error for each in failures] == [f"{clips[1]} is bad."]
    assert over_clips(clips, measure, **run)[0] == done
    assert measure.calls[3:] == ["bad.wav"]
    clips[0].write_bytes(b"longer")
    over_clips(clips, measure, **run)
    assert measure.calls[4:] == ["a.wav", "bad.wav"]
    over_clips(clips, measure, **(run | {"settings": {"q": 2}}))
    assert measure.calls[6:] == ["a.wav", "bad.wav", "c.wav"]


def test_a_run_that_is_killed_leaves_no_half_result(clips: list[Path], tmp_path: Path) -> None:
    def killed(path: Path) -> pd.DataFrame:
        if path.name == "c.wav":
            raise KeyboardInterrupt
        return Counting()(path)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        over_clips([clips[0], clips[2]], killed, out, settings={}, progress=False)
    assert len(list(out.iterdir())) == 1
    measure = Counting()
    over_clips([clips[0], clips[2]], measure, out, settings={}, progress=False)
    assert measure.calls == ["c.wav"]


def test_results_are_merged_in_order(clips: list[Path], tmp_path: Path) -> None:
    done, _ = over_clips(clips, Counting(), tmp_path / "out", settings={}, progress=False)
    merge(done, tmp_path / "all.parquet")
    table = pd.read_parquet(tmp_path / "all.parquet")
    assert table["path"].tolist() == [str(clips[0]), str(clips[2])]
    assert table["kind"].tolist() == ["a", "c"]
    assert not list(tmp_path.glob("*.part"))


def test_folders_are_searched_for_sound(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.FLAC").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    assert [path.name for path in sound_files(tmp_path)] == ["a.wav", "bad.wav", "c.wav", "x.FLAC"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="empty holds no sound file"):
        sound_files(tmp_path / "empty")

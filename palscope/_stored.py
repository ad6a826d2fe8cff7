"""What a saved model's folder holds, looked at before any library reads it.

Whoever opens a folder asks `check_folder` first: its JSON is JSON and small enough, its weights are
safetensors, its shards are there and inside, its sizes are sizes of a model. `check_weights` then
holds what the config asks for, built without memory, against what the weights hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from palscope._files import LARGEST_SETTINGS, LARGEST_TEXT, read_object, what_else
from palscope._hub import UNREAD
from palscope.errors import CheckpointError, PalscopeError, short

BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
"""Of a number, by what safetensors calls its type."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types in which weights are kept as they are."""

_MOST_PARTS = 1024
"""Layers, experts and such like: each is a module, made in a loop."""
_PARTS = re.compile(r"layers?$|blocks$|depths?$|stages$|experts$|num_labels$|num_beams$|sequences$")
_LEAST_NUMBERS = 1 << 24
"""No size in a config is above this, unless the weights hold more numbers."""
UNKNOWN = 0
"""As many numbers are held by weights that nobody has."""
_FREE = re.compile(r"theta|param|seed|_length$|version|_ids?$")
"""Numbers of a config that make no tensor."""

_FRONT_END = {
    "sampling_rate": (1_000, 1_000_000),
    "n_fft": (1, 1 << 16),
    "fft_window_size": (1, 1 << 16),
    "win_length": (1, 1 << 16),
    "hop_length": (1, 1 << 16),
    "feature_size": (1, 4096),
    "num_mel_bins": (1, 4096),
    "chunk_length": (1, 3600),
    "n_samples": (1, 1 << 30),
    "nb_max_frames": (1, 1 << 22),
    "nb_max_samples": (1, 1 << 30),
}
"""What a feature extractor's settings may be: they make filters and windows of such sizes."""

_JSON = {
    "config.json": "a model's settings",
    "generation_config.json": "settings of generation",
    "preprocessor_config.json": "a feature extractor's settings",
    "processor_config.json": "a processor's settings",
    "tokenizer_config.json": "a tokenizer's settings",
    "special_tokens_map.json": "a tokenizer's special tokens",
    "added_tokens.json": "a tokenizer's added tokens",
    "vocab.json": "a tokenizer's vocabulary",
    "tokenizer.json": "a tokenizer",
    "chat_template.json": "a chat template",
    "adapter_config.json": "an adapter's settings",
}
"""Files of a folder that libraries read, and what they should be."""
_LARGE = ("tokenizer.json", "vocab.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt")
"""Of which a model's folder has one."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint: its name, its shape, its numbers' type in the file."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())


def lacking(folder: Path) -> list[str]:
    """What a model's folder, of which a part may have been fetched, lacks to be opened."""
    ways = {
        "config.json": ("config.json",),
        "a tokenizer": TOKENIZER_FILES,
        "a processor's settings": ("preprocessor_config.json", "processor_config.json"),
    }
    lacks = [
        what for what, files in ways.items() if not any((folder / file).is_file() for file in files)
    ]
    return lacks if has_weights(folder) else [*lacks, "weights"]


def has_weights(folder: Path) -> bool:
    """Whether all of a model's safetensors are in its folder: every shard of them."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        names = [file.name for file in weight_files(folder)]
        names = [name for name in names if not name.startswith("adapter_")]
        return bool(names) and not any("-of-" in name for name in names)
    return all((folder / name).is_file() for name in _shards(index))


def check_settings(folder: Path) -> None:
    """Look at a saved model's settings, tokenizer and processor: `check_folder` without weights."""
    _checked_settings(folder, _state(folder, _JSON.__contains__))


def check_folder(folder: Path) -> tuple[StoredTensor, ...]:
    """Look at all that libraries would read in a saved model's folder; the weights' headers.

    Raises:
        CheckpointError: a file is cut, empty or something else; a shard is missing or lies outside;
            or a number in the settings is no size of a model.
    """
    check_settings(folder)
    return _checked(folder, _state(folder, _is_looked_at))


_State = tuple[tuple[str, int, int], ...]
"""Files by name, size and time of change."""


def _state(folder: Path, wanted: Callable[[str], bool]) -> _State:
    try:
        files = sorted(file for file in folder.iterdir() if wanted(file.name))
        # Changed files are looked at again.
        return tuple((file.name, *_stamp(file)) for file in files)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}.") from error


def _is_looked_at(name: str) -> bool:
    return name in _JSON or ".safetensors" in name


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # a link to nowhere: told below
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=32)
def _checked_settings(folder: Path, state: _State) -> dict[str, dict[str, Any]]:
    read = {
        name: read_object(
            folder / name,
            _JSON[name],
            CheckpointError,
            largest=LARGEST_TEXT if name in _LARGE else LARGEST_SETTINGS,
        )
        for name, *_ in state
    }
    if "tokenizer.json" in read:
        _check_vocabulary(folder / "tokenizer.json", read["tokenizer.json"])
    for name in ("preprocessor_config.json", "processor_config.json"):
        check_front_end(read.get(name, {}), folder / name)
    return {name: read.get(name, {}) for name in ("config.json", "generation_config.json")}


@lru_cache(maxsize=32)
def _checked(folder: Path, state: _State) -> tuple[StoredTensor, ...]:
    for name, *_ in state:
        if name.endswith(".safetensors.index.json"):
            _check_index(folder / name)
    tensors = stored_tensors(weight_files(folder))
    numbers = sum(each.numbers for each in tensors)
    small = tuple(each for each in state if each[0] in _JSON)
    for name, settings in _checked_settings(folder, small).items():
        check_sizes(settings, folder / name, numbers)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that make up a folder's model: one, the shards of its index, or all."""
    if (one := folder / "model.safetensors").is_file():
        return [one]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in _check_index(index)]
    return sorted(set(folder.glob("*.safetensors")) - set(folder.glob(UNREAD)))


def stored_tensors(files: Iterable[Path]) -> tuple[StoredTensor, ...]:
    """The tensors of safetensors files, by their headers.

    Raises `CheckpointError` for a file that is none.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        with reading_weights(file), cast(Any, safe_open)(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dictionary)
                part = opened.get_slice(name)
                tensors[name] = StoredTensor(name, tuple(part.get_shape()), part.get_dtype())
    return tuple(tensors.values())


def load_tensors(files: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors of safetensors files. Raises `CheckpointError` for a file that is none."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        with reading_weights(file):
            tensors |= load_file(file)
    return tensors


@contextmanager
def reading_weights(file: Path) -> Generator[None, None, None]:
    """Within, what a safetensors file does wrong is a `CheckpointError` that says what it is."""
    if not file.is_file():
        there = "is a folder" if file.is_dir() else "is no file"
        raise CheckpointError(f"{file} {there}; expected weights as safetensors.")
    try:
        with file.open("rb") as opened:
            begins = opened.read(200)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}.") from error
    pretends = what_else(begins) if begins else "is empty"
    if pretends is not None:
        raise CheckpointError(f"{file} {pretends}; expected weights as safetensors.")
    with reading(file, "safetensors: it is damaged or something else. Fetch or save it again"):
        yield


@contextmanager
def reading(path: Path, wanted: str) -> Generator[None, None, None]:
    """Within, whatever a library raises over a user's file is a `CheckpointError` of one sentence.

    Args:
        path: what is read.
        wanted: what it should be.
    """
    try:
        yield
    except PalscopeError:
        raise
    except BaseException as error:
        # tokenizers' panics are no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {_one_line(error)}); expected "
            f"{wanted}."
        ) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:299]}…"


def _check_vocabulary(file: Path, read: dict[str, Any]) -> None:
    model: Any = read.get("model")
    if not isinstance(model, dict) or not cast("dict[str, Any]", model).get("vocab"):
        raise CheckpointError(f"{file} has no vocabulary; save the tokenizer again.")


def _shards(file: Path) -> list[str]:
    places: Any = read_object(file, "an index of shards", CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{file}: weight_map is {short(places)}; expected tensors' files.")
    return sorted({str(each) for each in cast("dict[str, Any]", places).values()})


def _check_index(file: Path) -> list[str]:
    names = _shards(file)
    for name in names:
        if Path(name).name != name or "\\" in name:
            raise CheckpointError(f"{file} names {short(name)}, which is no file of its folder.")
        if not (file.parent / name).is_file():
            raise CheckpointError(f"{file} names {name}, which is missing; fetch it, too.")
    return names


def check_sizes(settings: Any, where: Path | str, numbers: int, key: str = "") -> None:
    """Check settings' numbers, in any depth, before anything is made of them.

    Args:
        settings: plain data.
        where: names them.
        numbers: how many the weights hold.

    Raises:
        CheckpointError: one is larger than any model's, or than all the weights.
    """
    if isinstance(settings, dict):
        for name, value in cast("dict[str, Any]", settings).items():
            check_sizes(value, where, numbers, name)
    elif isinstance(settings, list):
        for value in cast("list[Any]", settings):
            check_sizes(value, where, numbers, key)
    elif isinstance(settings, int | float) and not isinstance(settings, bool):
        most = _MOST_PARTS if _PARTS.search(key) else max(_LEAST_NUMBERS, numbers)
        if abs(settings) > most and not _FREE.search(key) and isinstance(settings, int):
            raise CheckpointError(
                f"{where}: {key} is {short(settings)}; the weights beside it are of {numbers} "
                "numbers, and no model of theirs has such a size. Restore the file."
            )


def check_front_end(settings: Any, where: Path | str) -> None:
    """Check a feature extractor's settings, in any depth, before filters are made of them.

    Raises `CheckpointError` for a value that is no number or out of bounds.
    """
    if isinstance(settings, list):
        for value in cast("list[Any]", settings):
            check_front_end(value, where)
    if not isinstance(settings, dict):
        return
    for name, value in cast("dict[str, Any]", settings).items():
        if name not in _FRONT_END or value is None:
            check_front_end(value, where)
            continue
        low, high = _FRONT_END[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise CheckpointError(
                f"{where}: {name} is {short(value)}; expected a number from {low} to {high}."
            )


# -- what a config asks for, against what there is -------------------------------------------------


@contextmanager
def without_memory(folder: Path) -> Generator[None, None, None]:
    """Within, modules are made without weights; what cannot be made is a `CheckpointError`."""
    with (
        reading(folder / "config.json", "settings that a model can be made of"),
        torch.device("meta"),
    ):
        yield


def check_weights(
    made: nn.Module,
    tensors: Sequence[StoredTensor],
    folder: Path,
    *,
    prefix: str = "",
    shapes: bool = True,
    kinds: bool = True,
) -> None:
    """Hold a model made `without_memory` against the weights stored for it.

    Args:
        made: the model, or the part of it that is stored.
        tensors: of the files.
        folder: names both.
        prefix: of `made`'s names among the tensors.
        shapes: tensors have the model's own names and shapes.
        kinds: weights are stored as they are, not in few bits.

    Raises:
        CheckpointError: the model would be much larger than its weights, a tensor has another
            shape, or integers or floats of 8 bits stand where floats belong.
    """
    expected = {f"{prefix}{name}": each for name, each in made.state_dict().items()}
    stored = [each for each in tensors if each.name.startswith(prefix)]
    have = sum(each.numbers for each in stored)
    asked = sum(each.numel() for each in (*made.parameters(), *made.buffers()))
    if kinds and asked > 2 * have + _LEAST_NUMBERS:
        raise CheckpointError(
            f"{folder}/config.json asks for {asked / 1e9:.3g} B numbers, the weights beside it "
            f"hold {have / 1e9:.3g} B: it is another model's, or a part of the weights is missing. "
            "Restore both."
        )
    problems: list[str] = []
    for each in stored:
        mine = expected.get(each.name)
        if shapes and mine is not None and tuple(mine.shape) != each.shape:
            problems.append(f"misshapen: {each.name} {each.shape}, not {tuple(mine.shape)}")
        # Of another part, or under a published name: places and counts are whole numbers there.
        weight = each.name.rpartition(".")[2] in ("weight", "bias")
        wants_whole = not weight if mine is None else _is_whole(mine)
        if kinds and not wants_whole and each.kind not in FLOATS:
            problems.append(
                f"{each.name} is of type {each.kind}, where floats of 16 bits or more belong"
            )
        if kinds and mine is not None and wants_whole and each.kind in FLOATS:
            problems.append(f"{each.name} is of type {each.kind}, where whole numbers belong")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{folder} does not fit its config.json; tensors {'; '.join(problems[:5])}{more}. Save "
            "it again with save_pretrained, or load the config it was saved with."
        )


def _is_whole(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def few_bits(folder: Path) -> bool:
    """Whether a folder's config says that its weights are stored in few bits."""
    config = read_object(folder / "config.json", _JSON["config.json"], CheckpointError)
    parts = [config, *(each for each in config.values() if isinstance(each, dict))]
    return any("quantization_config" in part for part in parts)

"""Sound as people hold it: tensors, lists, pairs with a rate, cells of `datasets`.

One rule for every entrance: `plain_sound` makes of each what `load_audio` reads, or says what is
expected; `is_one_clip` tells a clip from a batch of clips.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from palscope.errors import AudioError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one slash is what `Path` leaves


def is_samples(given: Any) -> bool:
    """Whether it is bare samples, whose rate is said beside: an array, a tensor, a list."""
    return isinstance(given, np.ndarray) or _is_tensor(given) or _is_list_of_numbers(given)


def is_one_clip(given: Any) -> bool:
    """Whether it is one clip, and no batch of them."""
    return not isinstance(given, list | tuple) or _is_list_of_numbers(given) or _is_rated(given)


def plain_sound(given: Any, native_rate: Any) -> tuple[Any, Any]:
    """What `load_audio` reads of a sound, and its rate where it is an array.

    A tensor and a list of floats become an array; `(samples, rate)`, and a cell of `datasets`
    (`{"array": …, "sampling_rate": …}`, or `{"bytes": …, "path": …}`), what they hold.

    Args:
        given: the sound.
        native_rate: Hz of bare samples, as the caller says it; None where it says none.

    Raises:
        AudioError: it is an address, or none of these; or its rate is said twice, differently.
    """
    kind = type(given).__name__
    if _is_address(given):
        raise AudioError(
            f"{given} is an address, and nothing is fetched: download the file and give its path."
        )
    if isinstance(given, bytearray | memoryview):
        return bytes(cast(Any, given)), native_rate
    if is_samples(given):
        return _array(given), native_rate
    if _is_rated(given):
        samples, rate = given if is_samples(given[0]) else reversed(given)
        return _array(samples), _one_rate(rate, native_rate)
    if isinstance(given, Mapping):
        cell = dict(cast("Mapping[str, Any]", given))
        if cell.get("array") is not None and cell.get("sampling_rate") is not None:
            return _array(cell["array"]), _one_rate(cell["sampling_rate"], native_rate)
        held = cell["bytes"] if cell.get("bytes") is not None else cell.get("path")
        if held is None:
            raise AudioError(
                f"a {kind} with {', '.join(map(str, cell)) or 'nothing'} is no "
                "sound; expected 'array' and 'sampling_rate', or the file's 'bytes' or 'path'."
            )
        return plain_sound(held, None)
    if hasattr(given, "get_all_samples"):  # torchcodec's decoder, which `datasets` gives
        all_of_it = given.get_all_samples()
        return _array(all_of_it.data).T, _one_rate(all_of_it.sample_rate, native_rate)
    if isinstance(given, list | tuple):
        raise AudioError(
            f"a {kind} is no sound: give the samples as a numpy array "
            "[samples] or [samples, channels] (of integers, so that their type says the full "
            "scale), and several clips in one flat list."
        )
    return given, native_rate


def check_rate(rate: Any, name: str, lowest: int, highest: int) -> None:
    """Raise `AudioError` where a rate is no number of Hz between two."""
    if not _is_number(rate) or not lowest <= rate <= highest:
        raise AudioError(f"{name} is {rate!r} Hz; expected {lowest} to {highest} Hz.")


def _is_address(given: Any) -> bool:
    name = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    return isinstance(name, str) and bool(_ADDRESS.match(name)) and not Path(name).exists()


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float | np.number) and not isinstance(given, bool)


def _is_tensor(given: Any) -> bool:
    return hasattr(given, "detach") and hasattr(given, "cpu")


def _is_list_of_numbers(given: Any) -> bool:
    """Floats alone: of integers no one knows the full scale."""
    if not isinstance(given, list | tuple) or not given:
        return False
    values = cast("list[Any]", given)
    return all(isinstance(value, float | np.floating) for value in values)


def _is_rated(given: Any) -> bool:
    """Whether it is samples and their rate, in either order."""
    if not isinstance(given, tuple) or len(cast("tuple[Any, ...]", given)) != 2:
        return False
    pair = cast("tuple[Any, Any]", given)
    return any(is_samples(samples) and _is_number(rate) for samples, rate in (pair, pair[::-1]))


def _array(given: Any) -> np.ndarray:
    if _is_tensor(given):
        tensor = given.detach().cpu()
        # NumPy has no bfloat16.
        given = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    try:
        array = np.asarray(given)
    except ValueError:
        raise AudioError(
            "the channels of a list differ in length; give them equally long."
        ) from None
    return array.astype(np.float32) if isinstance(given, list | tuple) else array


def _one_rate(rate: Any, native_rate: Any) -> Any:
    if native_rate is not None and native_rate != rate:
        raise AudioError(
            f"the sound brings its rate, {rate} Hz, but {native_rate} Hz was said too."
        )
    return rate

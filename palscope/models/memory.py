"""Whether a checkpoint's weights fit, known from its files' headers before any weight is read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import get_max_memory
from safetensors import safe_open

from palscope.errors import CheckpointError
from palscope.models.checkpoints import checkpoint_here
from palscope.setup.hub import UNREAD, hub_reachable

_STORED = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
"""Bytes of a number, by what safetensors calls its type."""
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint: its name, how many numbers it holds, their type in the file."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())

    def size(self, dtype: torch.dtype | None, bits: int | None) -> float:
        """Bytes in memory, as stored where `dtype` is None; of linear maps, in so many bits."""
        if bits is not None and len(self.shape) == 2 and not _keeps_its_type(self.name):
            return self.numbers * bits / 8
        if dtype is None or self.kind not in _FLOATS:
            return self.numbers * _STORED.get(self.kind, 4)
        return self.numbers * dtype.itemsize


def _keeps_its_type(name: str) -> bool:
    """bitsandbytes leaves embeddings and the head as they are."""
    return "embed" in name or "lm_head" in name


def stored_tensors(
    name_or_path: str | os.PathLike[str], unread: Collection[str] = ()
) -> list[StoredTensor]:
    """The tensors of a checkpoint: a folder, or a repository of the hub, cached or not.

    Args:
        unread: prefixes of tensors that the model does not load.

    Returns:
        Nothing for what cannot be found: opening it will say so.
    """
    folder = checkpoint_here(os.fspath(name_or_path))
    found = (
        _on_the_hub(os.fspath(name_or_path))
        if folder is None
        else _in_files(sorted(set(folder.glob("*.safetensors")) - set(folder.glob(UNREAD))))
    )
    return [each for each in found if not each.name.startswith(tuple(unread))]


def _in_files(files: Iterable[Path]) -> list[StoredTensor]:
    tensors: list[StoredTensor] = []
    for file in files:
        with cast(Any, safe_open)(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dictionary)
                part = opened.get_slice(name)
                tensors.append(StoredTensor(name, tuple(part.get_shape()), part.get_dtype()))
    return tensors


def _on_the_hub(name: str) -> list[StoredTensor]:
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError

    if name.count("/") != 1 or not hub_reachable():
        return []
    try:
        files = get_safetensors_metadata(name).files_metadata.values()
    except (HfHubHTTPError, NotASafetensorsRepoError):
        return []
    return [
        StoredTensor(tensor, tuple(info.shape), str(info.dtype))
        for file in files
        for tensor, info in file.tensors.items()
    ]


def weights_bytes(
    tensors: Iterable[StoredTensor], dtype: torch.dtype | None = None, bits: int | None = None
) -> int:
    """Memory of a checkpoint's weights.

    Args:
        dtype: of floating-point weights once loaded; None for that of the file.
        bits: of linear maps, 8 or 4, where they are quantised.
    """
    return round(sum(each.size(dtype, bits) for each in tensors))


def check_fits(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None,
    device: torch.device,
    unread: Collection[str] = (),
    device_map: Any = None,
    offload_folder: Any = None,
    quantization_config: Any = None,
) -> None:
    """Check that a checkpoint's weights fit into the memory that is free now.

    What a pass needs beside them is not counted (`analyses/plan.py` says that).

    Args:
        dtype: None for that of the file.
        device: where the weights go, unless a `device_map` spreads them.
        offload_folder: where they may go when memory is full; then all fits.

    Raises:
        CheckpointError: they do not.
    """
    if device_map is not None and offload_folder is not None:
        return
    bits = _bits(quantization_config)
    tensors = stored_tensors(name_or_path, unread)
    needed = weights_bytes(tensors, dtype, bits)
    free: dict[Any, Any] = dict(cast(Any, get_max_memory()))
    if device_map is not None:
        places, room = "all devices together have", sum(free.values())
    elif device.type == "cuda":
        places, room = f"{device} has", free.get(device.index or 0, 0)
    else:
        places, room = "this machine has", free["cpu"]
    if needed <= room:
        return
    numbers = sum(each.numbers for each in tensors)
    raise CheckpointError(
        f"{os.fspath(name_or_path)} has {numbers / 1e9:.2f} B weights, {needed / 1e9:.1f} GB "
        f"{'as stored' if dtype is None else 'in ' + str(dtype).removeprefix('torch.')}"
        f"{'' if bits is None else f' with linear maps in {bits} bits'}, but {places} "
        f"{room / 1e9:.1f} GB free. Load it in fewer bits (dtype=torch.bfloat16, or "
        "quantization_config=BitsAndBytesConfig(load_in_4bit=True)), spread it "
        "(device_map='auto', offload_folder=…), or take a smaller one."
    )


def _bits(config: Any) -> int | None:
    if config is None:
        return None
    return 4 if getattr(config, "load_in_4bit", False) else 8

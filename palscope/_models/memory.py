"""Whether a checkpoint's weights fit, known from its files' headers before any weight is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, cast

import torch
from accelerate.utils import get_max_memory

from palscope import _stored as stored
from palscope._hub import hub_name, hub_reachable
from palscope._models.finding import Checkpoint
from palscope._stored import BYTES, FLOATS, StoredTensor
from palscope.errors import CheckpointError


def _size(tensor: StoredTensor, dtype: torch.dtype | None, bits: int | None) -> float:
    """Bytes in memory, as stored where `dtype` is None; of linear maps, in so many bits."""
    if bits is not None and len(tensor.shape) == 2 and not _keeps_its_type(tensor.name):
        return tensor.numbers * bits / 8
    if dtype is None or tensor.kind not in FLOATS:
        return tensor.numbers * BYTES.get(tensor.kind, 4)
    return tensor.numbers * dtype.itemsize


def _keeps_its_type(name: str) -> bool:
    """bitsandbytes leaves embeddings and the head as they are."""
    return "embed" in name or "lm_head" in name


def checkpoint_tensors(found: Checkpoint, unread: Collection[str] = ()) -> list[StoredTensor]:
    """The tensors of a checkpoint: of its files, or as the hub knows them before they are fetched.

    Args:
        found: the checkpoint.
        unread: prefixes of tensors that the model does not load.

    Raises:
        CheckpointError: a file of the folder is damaged or something else.
    """
    tensors = (
        stored.stored_tensors(stored.weight_files(found.folder))
        if found.whole
        else _on_the_hub(found.name)
    )
    return [each for each in tensors if not each.name.startswith(tuple(unread))]


def _on_the_hub(name: str) -> list[StoredTensor]:
    from huggingface_hub import get_safetensors_metadata

    place = hub_name(name)
    if place is None or not hub_reachable():
        return []
    try:
        found = get_safetensors_metadata(place.repository, revision=place.revision)
    except Exception:  # whatever the network or the client raises: fetching the files says it
        return []
    return [
        StoredTensor(tensor, tuple(info.shape), str(info.dtype))
        for file in found.files_metadata.values()
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
    return round(sum(_size(each, dtype, bits) for each in tensors))


def check_fits(
    found: Checkpoint,
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
        found: the checkpoint.
        dtype: None for that of the file.
        device: where the weights go, unless a `device_map` spreads them.
        offload_folder: where they may go when memory is full; then all fits.

    Raises:
        CheckpointError: they do not.
    """
    if device_map is not None and offload_folder is not None:
        return
    bits = _bits(quantization_config)
    tensors = checkpoint_tensors(found, unread)
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
        f"{found.name} has {numbers / 1e9:.2f} B weights, {needed / 1e9:.1f} GB "
        f"{'as stored' if dtype is None else 'in ' + str(dtype).removeprefix('torch.')}"
        f"{'' if bits is None else f' with linear maps in {bits} bits'}, but {places} "
        f"{room / 1e9:.1f} GB free. Load it in fewer bits (dtype=torch.bfloat16, or "
        "quantization_config=BitsAndBytesConfig(load_in_4bit=True)), spread it "
        "(device_map='auto', offload_folder=…), or take a smaller one."
    )


def check_room(numbers: int, what: str) -> None:
    """Raise `CheckpointError` where so many new weights, in float32, do not fit into memory."""
    free: dict[Any, Any] = dict(cast(Any, get_max_memory()))
    if 4 * numbers > free["cpu"]:
        raise CheckpointError(
            f"{what} would have {numbers / 1e9:.3g} B weights, {4 * numbers / 1e9:.3g} GB; this "
            f"machine has {free['cpu'] / 1e9:.1f} GB free. Make it smaller."
        )


def _bits(config: Any) -> int | None:
    if config is None:
        return None
    return 4 if getattr(config, "load_in_4bit", False) else 8

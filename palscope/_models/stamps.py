"""Which weights something was made with: what is kept of a model is valid for these alone.

torch counts changes of a tensor, but not those through `.data` and not all that optimisers make
(fused ones). So weights are read: of clips, whose encoder and connector are small beside the
decoder, all of them, in exact arithmetic; of a cache, made by a decoder that is not small, those
that are (norms, adapters), and of the others what torch knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

_SMALL = 2**14
"""Numbers of a tensor that is read wherever it stands."""
_FIRST = 2**16
"""Words of a tensor's first row whose order counts."""

Stamp = tuple[Any, ...]
"""Equal where nothing changed."""


def stamp_contents(modules: Iterable[nn.Module]) -> Stamp:
    """Stands for what is in weights and buffers, and which adapters are on: copies are equal.

    Unnoticed is but an exchange of numbers within rows other than the first.
    """
    return stamps_of_contents([modules])[0]


def stamps_of_contents(groups: Iterable[Iterable[nn.Module]]) -> list[Stamp]:
    """`stamp_contents` of each of several groups of modules; a device reads all at once."""
    found = [_found(modules) for modules in groups]
    sums = _sums([weights for weights, _ in found])
    return [
        (*((w.dtype, tuple(w.shape)) for w in weights), *settings, *own)
        for (weights, settings), own in zip(found, sums, strict=True)
    ]


def stamp_identity(modules: Iterable[nn.Module]) -> Stamp:
    """Stands for which tensors weights are, how often each was changed, and which adapters are on.

    Unnoticed is a change of large weights alone, by `.data` or by a fused optimiser.
    """
    weights, settings = _found(modules)
    small = [weight for weight in weights if weight.numel() <= _SMALL]
    return (*((w.data_ptr(), _version(w)) for w in weights), *settings, *_sums([small])[0])


def _found(modules: Iterable[nn.Module]) -> tuple[list[Tensor], list[Any]]:
    weights: list[Tensor] = []
    settings: list[Any] = []
    for part in _parts(modules):
        # Buffers that are not stored are made of the config, and made anew (rotary angles).
        passing: set[str] = part._non_persistent_buffers_set
        buffers = {k: v for k, v in part._buffers.items() if k not in passing}
        weights += [
            getattr(value, "_local_tensor", value).detach()  # this process's share
            for value in (*part._parameters.values(), *buffers.values())
            if value is not None
        ]
        if "base_layer" in part._modules:
            adapters: Any = part
            names, scales = tuple(adapters.active_adapters), adapters.scaling
            merged = tuple(adapters.merged_adapters)
            settings.append((adapters.disable_adapters, merged, *((n, scales[n]) for n in names)))
    return weights, settings


def _parts(modules: Iterable[nn.Module]) -> Iterator[Any]:
    """All modules within, less what TransformerLens stands around them."""
    for module in modules:
        plain: Any = module
        while "_original_component" in plain._modules:  # as `raw` has it, at a tenth of the time
            plain = plain._modules["_original_component"]
        yield plain
        yield from _parts(child for child in plain._modules.values() if child is not None)


def stamp_tensor(weight: Tensor) -> Stamp:
    """Stands for one tensor: its type, its shape and what is in it."""
    rows = len(weight) if weight.ndim else 1
    empty = weight.is_meta or not weight.numel()
    return weight.dtype, tuple(weight.shape), 0 if empty else int(_sum(_words(weight), rows))


def _version(weight: Tensor) -> int:
    return -1 if weight.is_inference() else weight._version


def _sums(groups: Sequence[Iterable[Tensor]]) -> list[list[int]]:
    """Numbers that any change of the bits of a group's weights changes."""
    sums: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for number, weights in enumerate(groups):
        for device, here in _by_device(weights).items():
            large = [_sum(_words(w), len(w)) for w in here if w.numel() > _SMALL]
            small = [_sum(part, 1) for part in _joined(w for w in here if w.numel() <= _SMALL)]
            sums.setdefault(device, []).extend((number, each) for each in large + small)
    found: list[list[int]] = [[] for _ in groups]
    for here in sums.values():
        values: list[int] = cast(Any, torch.stack([each for _, each in here])).tolist()
        for (number, _), value in zip(here, values, strict=True):
            found[number].append(value)
    return found


def _by_device(weights: Iterable[Tensor]) -> dict[torch.device, list[Tensor]]:
    by_device: dict[torch.device, list[Tensor]] = {}
    for weight in weights:
        if weight.numel() and not weight.is_meta:  # weights that are elsewhere until they are used
            by_device.setdefault(weight.device, []).append(weight)
    return by_device


def _joined(weights: Iterable[Tensor]) -> Iterator[Tensor]:
    """Words of many small weights in few tensors, none of which takes memory that counts."""
    several: list[Tensor] = []
    count = 0
    for weight in weights:
        several.append(_words(weight))
        count += len(several[-1])
        if count >= _SMALL:
            yield torch.cat(several)
            several, count = [], 0
    if several:
        yield torch.cat(several)


def _words(weight: Tensor) -> Tensor:
    """A weight's bits as whole numbers of 64."""
    flat = weight.flatten()
    if flat.stride(0) != 1 or flat.storage_offset() * flat.itemsize % 8:
        flat = flat.clone(memory_format=torch.contiguous_format)
    if flat.nbytes % 8:
        flat = torch.nn.functional.pad(flat.view(torch.uint8), (0, -flat.nbytes % 8))
    return flat.view(torch.int64)


def _sum(words: Tensor, rows: int) -> Tensor:
    """Exact: whole numbers do not round. Rows are summed, and the place of each counts.

    One pass, as fast as memory.
    """
    table = words.view(rows if len(words) % rows == 0 else 1, -1)
    first = table[0, :_FIRST]
    return (table.sum(1) * _odd(table)).sum() + (first * _odd(first)).sum() * 3


def _odd(like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device) * 2 + 1

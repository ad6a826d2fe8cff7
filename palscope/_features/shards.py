"""Shards: the rows of some clips in one safetensors file, which says whose they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from palscope._features.rows import Rows
from palscope._files import whole
from palscope.errors import PalscopeError

_TOLD = "palscope"
"""The key of a shard's metadata: one, for safetensors writes several in any order."""
PARTS = ("values", "seconds", "stream", "clip")
"""Tensors of each hook point; `clip` counts from the shard's first."""

About = dict[str, Any]
"""What is kept of a clip: plain data, `left_out` among it where it has no rows."""


@dataclass(frozen=True)
class Shard:
    """A shard that is there.

    Attributes:
        path: the file, whose name is the shard's.
        clips: what is kept of each of its clips.
        rows: how many, by hook point.
    """

    path: Path
    clips: list[About]
    rows: dict[str, int]

    def tensors(self) -> dict[str, Tensor]:
        """Memory-mapped: what is read of them takes memory, and what is not does not."""
        return load_file(self.path)


def write_shard(
    path: Path, clips: Sequence[About], rows: Sequence[Mapping[str, Rows] | None]
) -> None:
    """Write the rows of `clips`, None of those that are left out; all or nothing.

    Raises `PalscopeError` where it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    hooks = dict.fromkeys(hook for found in rows if found is not None for hook in found)
    for hook in hooks:
        mine = [(n, found[hook]) for n, found in enumerate(rows) if found and hook in found]
        counted = [torch.full((len(each.stream),), n, dtype=torch.int32) for n, each in mine]
        tensors |= {
            f"{hook}:values": torch.cat([each.values for _, each in mine]),
            f"{hook}:seconds": torch.cat([each.seconds for _, each in mine]),
            f"{hook}:stream": torch.cat([each.stream for _, each in mine]),
            f"{hook}:clip": torch.cat(counted),
        }
    told = json.dumps({"shard": path.stem, "clips": list(clips)})
    with whole(path) as part:
        save_file(tensors, part, {_TOLD: told})


def read_shard(path: Path) -> Shard:
    """A shard by its header.

    Raises:
        PalscopeError: it is missing, damaged, or another one under this name.
    """
    again = "remove it, and go on with the run by --resume"
    try:
        with cast(Any, safe_open)(path, framework="pt") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
            told: dict[str, Any] = json.loads(metadata.get(_TOLD, "{}"))
            names: list[str] = list(opened.keys())
            shapes = {name: opened.get_slice(name).get_shape() for name in names}
    except Exception as error:  # safetensors' own is a plain Exception
        raise PalscopeError(f"{path} cannot be read as a shard ({error}): {again}.") from error
    if told.get("shard") != path.stem:
        raise PalscopeError(f"{path} is another shard's file: {again}.")
    rows = {
        name.removesuffix(":values"): shape[0]
        for name, shape in shapes.items()
        if name.endswith(":values")
    }
    return Shard(path, told["clips"], rows)

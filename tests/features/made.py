"""A store of rows that are made up, as if a model had given them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palscope._features.rows import BEFORE_DECODER, Rows
from palscope._features.shards import write_shard
from palscope._files import make_folder
from palscope._sweeps.store import Run
from palscope.features import ActivationStore

RECORD: dict[str, Any] = {
    "config": {"addresses": ["made up"]},
    "weights": {"checkpoint": {"name": "made/up", "sha256": "0" * 64}},
    "route": {"layers": 1},
}


def store_of(
    folder: Path,
    values: dict[str, Tensor],
    clips: Sequence[dict[str, str]] = ({"name": "clip"},),
    shards: int = 2,
    heads: dict[str, list[tuple[int, int]]] | None = None,
) -> ActivationStore:
    """Rows by hook point, shared out evenly over the clips in their order."""
    run = Run.open(folder, RECORD, resume=False)
    make_folder(folder / "shards")
    about = [{"label": "", "domain": "", "split": "", "group": "", **clip} for clip in clips]
    parts = {name: rows.tensor_split(len(about)) for name, rows in values.items()}
    names: list[str] = []
    for number, mine in enumerate(np.array_split(np.arange(len(about)), min(shards, len(about)))):
        path = folder / "shards" / f"{number:05d}-made.safetensors"
        found = [{name: _rows(parts[name][clip]) for name in parts} for clip in mine]
        write_shard(path, [about[clip] for clip in mine], found)
        names.append(path.name)
    run.finish(
        shards=names,
        heads=heads or {},
        hook_points={name: rows.shape[1] for name, rows in values.items()},
        streams={str(BEFORE_DECODER): "encoder"},
        clips=len(about),
        left_out={},
    )
    return ActivationStore(folder)


def _rows(values: Tensor) -> Rows:
    start = torch.arange(len(values), dtype=torch.float64) * 0.02
    stream = torch.full((len(values),), BEFORE_DECODER, dtype=torch.int8)
    return Rows(values.contiguous(), torch.stack([start, start + 0.02], 1), stream)


def planted(rows: int, *, d: int, latents: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows that are sums of `k` of so many unit directions, and the directions."""
    drawn = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(latents, d, generator=drawn), dim=1)
    chosen = torch.rand(rows, latents, generator=drawn).topk(k, dim=1).indices
    sizes = 0.5 + torch.rand(rows, k, generator=drawn)
    held = torch.zeros(rows, latents).scatter(1, chosen, sizes)
    return 3.0 * held @ directions + 2.0, directions

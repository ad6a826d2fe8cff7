"""The record of a run: everything that its numbers depend on."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import palscope
from palscope.encoders.weights import find_encoder
from palscope.hooks import HookedAudioModel
from palscope.models.base_weights import base_fingerprint, find_base
from palscope.models.checkpoints import find_checkpoint

_PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "pandas", "soundfile", "soxr")


def weights_hashes(name_or_path: str | os.PathLike[str], model: HookedAudioModel) -> dict[str, Any]:
    """sha256 of a checkpoint's config and tensors, and of the bases that it refers to."""
    config = model.model.config
    hashes: dict[str, Any] = {
        "checkpoint": {
            "name": os.fspath(name_or_path),
            "sha256": base_fingerprint(find_checkpoint(name_or_path)),
        }
    }
    if not config.store_base:
        for part, name, find in (
            ("text_base", config.text_base, find_base),
            ("encoder_base", config.encoder_base, find_encoder),
        ):
            assert name is not None
            hashes[part] = {"name": name, "sha256": base_fingerprint(find(name))}
    return hashes


def run_record(
    model: HookedAudioModel, *, config: Mapping[str, Any], weights: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """`command, config, route, weights, seed, device, dtype, versions` of this process's run."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "config": dict(config),
        "route": model.current_route.to_dict(),
        "weights": dict(weights),
        "seed": seed,
        "device": str(model.model.device),
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(),
            "palscope": palscope.__version__,
            **{name: _version(name) for name in _PACKAGES},
        },
    }


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data, all or nothing."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

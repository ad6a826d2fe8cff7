"""The record of a run: everything that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import palscope
from palscope._files import read_object
from palscope._hooks import HookedAudioModel
from palscope._models.base_weights import base_fingerprint, find_base
from palscope._models.chat_format import prompt_settings
from palscope._published.loading import fingerprint
from palscope.encoders._weights import find_encoder
from palscope.errors import CheckpointError

_PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "pandas", "av", "soxr")


def weights_hashes(model: HookedAudioModel) -> dict[str, Any]:
    """sha256 of a checkpoint's config and tensors, and of the bases that it refers to.

    Of a repository of the hub also the commit.

    Raises:
        CheckpointError: the model came from memory, so that nothing says which weights it has.
    """
    config: Any = model.model.config
    found = model.checkpoint
    if found is None:
        raise CheckpointError(
            "the model was wrapped from memory, so no file tells its weights; save it and open it "
            "by palscope.load(FOLDER)."
        )
    checkpoint = {"name": found.name, "sha256": fingerprint(found)}
    if found.commit is not None:
        checkpoint["commit"] = found.commit
    hashes: dict[str, Any] = {"checkpoint": checkpoint}
    if not getattr(config, "store_base", True):  # a published model refers to none
        for part, name, find in (
            ("text_base", config.text_base, find_base),
            ("encoder_base", config.encoder_base, find_encoder),
        ):
            assert name is not None
            hashes[part] = {"name": name, "sha256": base_fingerprint(find(name))}
    return hashes


def encoder_hash(model: HookedAudioModel) -> str | None:
    """sha256 of all that an encoder's activations depend on: weights, config and spectrogram.

    Models that differ in their decoder, connector or route alone have the same. None where the
    checkpoint holds an encoder of its own, whose weights are hashed with all others. Settings are
    read from its files: what transformers makes of them has other entries in other versions.
    """
    config: Any = model.model.config
    found = model.checkpoint
    if found is None or getattr(config, "store_base", True):
        return None
    base = base_fingerprint(find_encoder(config.encoder_base))
    processor = read_object(
        found.folder / "processor_config.json", "a processor's settings", CheckpointError
    )
    about = [base, found.settings["encoder"], processor.get("feature_extractor")]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str | None:
    """sha256 of a file's bytes; None where there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def run_record(
    model: HookedAudioModel,
    *,
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
    seed: int,
    data: Iterable[Path] = (),
) -> dict[str, Any]:
    """`command, config, route, weights, prompt, seed, device, dtype, data, versions` of this run.

    `prompt` is what the chat format is told beside questions: system message and date; and
    `generation_set_aside` the checkpoint's settings of generation that are not applied.

    `data` are the files that it reads, a manifest for example; the record has their sha256.
    """
    return {
        **command_record(config),
        "route": model.current_route.to_dict(),
        "weights": dict(weights),
        "prompt": prompt_settings(model.processor),
        "generation_set_aside": model.model.generation_set_aside,
        "seed": seed,
        "device": str(model.model.device),
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "data": {str(path): file_hash(path) for path in data},
    }


def command_record(config: Mapping[str, Any]) -> dict[str, Any]:
    """`command, config, versions` of this process: the record of a run without a model."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "config": dict(config),
        "versions": {
            "python": platform.python_version(),
            "palscope": palscope.__version__,
            **{name: _version(name) for name in _PACKAGES},
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Pretrained encoder weights: where they are looked for, and how they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from palscope.encoders.whisper import SIZES, WhisperEncoder, WhisperEncoderConfig
from palscope.errors import CheckpointError
from palscope.setup.hub import cached_snapshot, download_snapshot, hub_reachable

_BUNDLED = {"openai/whisper-tiny.en": "whisper-tiny.en-encoder"}
# Never the *.bin files of older checkpoints: they are pickles, which run code when read.
_WANTED = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
]


def load_whisper_encoder(
    name_or_path: str | os.PathLike[str],
    layers: tuple[int, ...] | None = None,
    *,
    pad_to_window: bool = False,
    dtype: torch.dtype = torch.float32,
) -> WhisperEncoder:
    """Load a Whisper encoder with published weights.

    `name_or_path` is a hub id (`openai/whisper-tiny.en`) or a folder.

    Found in this order: a local folder; the hub's cache on this machine; the weights that palscope
    brings (tiny.en); the hub. A folder may hold a whole Whisper or its encoder only. `layers` as
    in `WhisperEncoderConfig`; left out, the last one.

    Raises `CheckpointError` when nothing is found, when there are no safetensors, or when a tensor
    is missing, foreign or of another shape.
    """
    folder = find_encoder(name_or_path)
    sizes = _read_sizes(folder)
    chosen = (int(sizes["encoder_layers"]),) if layers is None else layers
    encoder = WhisperEncoder(
        WhisperEncoderConfig(**sizes, layers=chosen, pad_to_window=pad_to_window)
    )
    _load_strictly(encoder, _encoder_tensors(folder), folder)
    return encoder.to(dtype).eval()


def find_encoder(name_or_path: str | os.PathLike[str]) -> Path:
    """Find the folder with the config and weights that `load_whisper_encoder` reads."""
    name = os.fspath(name_or_path)
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"There is no folder {name}; expected one, or a hub id 'owner/name'.")
    cached = cached_snapshot(name)
    # The cache may hold a part of the repository only, for another program's sake.
    if cached is not None and (cached / "config.json").is_file() and _weight_files(cached):
        return cached
    if name in _BUNDLED:
        return Path(str(files("palscope") / "assets" / _BUNDLED[name]))
    if hub_reachable():
        return download_snapshot(name, _WANTED)
    raise CheckpointError(
        f"{name} is neither a folder, nor in the hub's cache on this machine, and the hub "
        "cannot be reached (or HF_HUB_OFFLINE is set). Give a folder with "
        f"config.json and model.safetensors. Shipped with palscope: {', '.join(_BUNDLED)}."
    )


def _read_sizes(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {name: config[name] for name in SIZES}
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no config.json; expected a saved Whisper model."
        ) from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{folder / 'config.json'} is no JSON ({error}).") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a Whisper model ({error!r})."
        ) from error


def _encoder_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the encoder's tensors by the names they have inside `transformers`' encoder."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in _all_tensors(folder):
        inside = name.removeprefix("model.")
        if inside.startswith("encoder."):
            tensors[inside.removeprefix("encoder.")] = tensor
        elif not inside.startswith(("decoder.", "proj_out.")):
            tensors[inside] = tensor
    return tensors


def _all_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    paths = _weight_files(folder)
    if not paths:
        pickles = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"))]
        found = f" {', '.join(pickles)} may run code when read, and is refused." if pickles else ""
        raise CheckpointError(
            f"{folder} holds no model.safetensors.{found} "
            "Save the model again with save_pretrained, which writes safetensors."
        )
    for path in paths:
        try:
            yield from load_file(path).items()
        except Exception as error:  # the library's own errors have no common base
            raise CheckpointError(f"{path} is no safetensors file ({error}).") from error


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model.safetensors")) or sorted(folder.glob("model-*.safetensors"))


def _load_strictly(encoder: WhisperEncoder, tensors: dict[str, Tensor], folder: Path) -> None:
    expected = encoder.model.state_dict()
    problems = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"{name} is foreign" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{folder} does not hold the encoder its config.json describes: "
            f"{'; '.join(problems[:5])}{more}. Use the weights that belong to this config."
        )
    cast(Any, encoder.model).load_state_dict(tensors)

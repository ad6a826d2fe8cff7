"""Pretrained encoder weights: where they are looked for, and how they are read."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import torch
from huggingface_hub import constants, snapshot_download
from safetensors.torch import load_file
from torch import Tensor

from palscope.encoders.whisper import WhisperEncoder, WhisperEncoderConfig
from palscope.errors import CheckpointError

_BUNDLED = {"openai/whisper-tiny.en": "whisper-tiny.en-encoder"}
# Never the *.bin files of older checkpoints: they are pickles, which run code when read.
_WANTED = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
]
_SIZES = (
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "num_mel_bins",
    "max_source_positions",
    "activation_function",
    "scale_embedding",
)
_PROBE_SECONDS = 3.0


def load_whisper_encoder(
    name_or_path: str | os.PathLike[str],
    layers: tuple[int, ...] | None = None,
    *,
    pad_to_window: bool = False,
    dtype: torch.dtype = torch.float32,
) -> WhisperEncoder:
    """A Whisper encoder with published weights, by hub id (`openai/whisper-tiny.en`) or folder.

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
    """The folder with the encoder's `config.json` and safetensors (see `load_whisper_encoder`)."""
    name = os.fspath(name_or_path)
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"There is no folder {name}; expected one, or a hub id 'owner/name'.")
    if (folder := _from_hub(name, offline=True)) is not None:
        return folder
    if name in _BUNDLED:
        return Path(str(files("palscope") / "assets" / _BUNDLED[name]))
    if _hub_answers() and (folder := _from_hub(name, offline=False)) is not None:
        return folder
    raise CheckpointError(
        f"{name} is neither a folder, nor in the hub's cache on this machine, nor can it be "
        "fetched from the hub. Check the name and the connection, or give a folder with "
        f"config.json and model.safetensors. Shipped with palscope: {', '.join(_BUNDLED)}."
    )


def _from_hub(name: str, *, offline: bool) -> Path | None:
    """The hub's snapshot, or None when it is not there, or holds no safetensors."""
    try:
        folder = snapshot_download(name, allow_patterns=_WANTED, local_files_only=offline)
    except (OSError, ValueError):  # not cached, no such repository, no connection
        return None
    whole = (Path(folder) / "config.json").is_file() and _weight_files(Path(folder))
    return Path(folder) if whole else None  # the cache may hold a part of it only


def _hub_answers() -> bool:
    """Whether the hub can be reached, in seconds: its own client retries for minutes."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True  # only the proxy knows
    host = urlsplit(constants.ENDPOINT)
    port = host.port or (443 if host.scheme == "https" else 80)
    try:
        with socket.create_connection((host.hostname or "", port), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


def _read_sizes(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {name: config[name] for name in _SIZES}
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no config.json; expected a saved Whisper model."
        ) from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{folder / 'config.json'} is no JSON ({error}).") from error
    except KeyError as error:
        raise CheckpointError(
            f"{folder / 'config.json'} lacks {error}; expected the settings of a Whisper model."
        ) from error


def _encoder_tensors(folder: Path) -> dict[str, Tensor]:
    """The encoder's tensors by the names they have inside `transformers`' encoder."""
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

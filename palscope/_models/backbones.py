"""Backbones by name, as configs alone: to plan for a model before fetching its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig

from palscope._connectors import ConnectorConfig
from palscope._files import read_object
from palscope._hub import cached_snapshot, download_snapshot, hub_name, hub_reachable
from palscope._models.config import PalscopeConfig
from palscope._models.modeling import PalscopeForConditionalGeneration
from palscope._routing import Route
from palscope._stored import UNKNOWN, check_sizes, reading
from palscope.encoders import EncoderConfig, WhisperEncoderConfig
from palscope.errors import CheckpointError

BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "meta-llama/Llama-3.2-1B": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.2-3B": {
        "model_type": "llama",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-1.5B": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
}
"""The paper's backbones (section 4), with the sizes of their public configs; rotary scaling, which
costs nothing, is left out. The `-Instruct` variants have the same."""

ENCODERS: Mapping[str, WhisperEncoderConfig] = {
    f"openai/whisper-{name}": WhisperEncoderConfig(
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        num_mel_bins=bins,
        layers=(layers,),
    )
    for name, width, layers, bins in (
        ("tiny", 384, 4, 80),
        ("base", 512, 6, 80),
        ("small", 768, 12, 80),
        ("medium", 1024, 24, 80),
        ("large-v3", 1280, 32, 128),
    )
}
"""Whisper's sizes, the last layer's states as tokens."""


def backbone_config(name: str) -> PretrainedConfig:
    """A decoder's config: of a local folder, of the table, of the hub's cache, or of the hub.

    Raises:
        CheckpointError: none of them has it.
    """
    folder: Path | None = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        sizes = BACKBONES.get(name.removesuffix("-Instruct"))
        if sizes is not None:
            settings = dict(sizes)
            return AutoConfig.for_model(settings.pop("model_type"), **settings)
        folder = cached_snapshot(name)
        cached = folder is not None and (folder / "config.json").is_file()
        if not cached and hub_name(name) and hub_reachable():
            folder = download_snapshot(name, ["config.json"])
    if folder is None or not (folder / "config.json").is_file():
        raise CheckpointError(
            f"no config of {name!r}: give a folder with a config.json, one of "
            f"{', '.join(BACKBONES)}, or the id of a hub that can be reached."
        )
    file = folder / "config.json"
    check_sizes(read_object(file, "a model's settings", CheckpointError), file, UNKNOWN)
    with reading(file, "a decoder's settings"):
        return AutoConfig.from_pretrained(folder)


def unloaded(
    text_config: PretrainedConfig,
    route: Route,
    *,
    encoder: EncoderConfig | None = None,
    connector: ConnectorConfig | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> PalscopeForConditionalGeneration:
    """A model on the meta device: shapes without weights.

    Args:
        text_config: the decoder's.
        route: what it is to be trained with.
        encoder: Whisper tiny.en by default.
        connector: by default the one that `route` needs, with palscope's default widths.
        dtype: of all weights.

    Raises:
        CheckpointError: the decoder's family is not supported.
        RouteError: the route is of another number of layers.
    """
    config = PalscopeConfig(
        text_config=text_config,
        encoder=(encoder or WhisperEncoderConfig()).to_dict(),
        connector=(connector or ConnectorConfig.for_route(route)).to_dict(),
        route=route.to_dict(),
        audio_token_id=0,
    )
    with torch.device("meta"):
        model: Any = PalscopeForConditionalGeneration(config)
    return model.to(dtype)

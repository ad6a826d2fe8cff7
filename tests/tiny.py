"""Tiny random models of every decoder family: for unit tests only."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from palscope._connectors import ConnectorConfig, ProjectorConfig
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.families import FAMILIES
from palscope._routing import FRAMES, SUMMARY, Route
from palscope.encoders import WhisperEncoderConfig, build_encoder

AUDIO_ID = 90
VOCABULARY = 89
"""Ids of text are below; the audio's id lies outside of the embedding table, as in real use."""

LAYERS = 4

ROUTES = {
    "plits": Route.plits(LAYERS),
    "lal": Route.lal(LAYERS),
    "pal": Route.pal(LAYERS, [0, 2]),
    "queries": Route.lal(LAYERS).with_audio_queries(),
    "frozen": Route.plits(LAYERS).frozen_from(2),
}
"""One of each kind."""


def text_config(family: str, **changes: Any) -> Any:
    """A config of `family` with four small layers, grouped-query attention where it has it."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    special: dict[str, dict[str, Any]] = {
        "mistral": {"sliding_window": 7},
        "qwen2": {
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 2,
        },
        "gemma2": {"sliding_window": 7, "query_pre_attn_scalar": 8},
        "gemma3_text": {"sliding_window": 7, "query_pre_attn_scalar": 8},
        "phi3": {"sliding_window": None, "partial_rotary_factor": 0.5},
        "granite": {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.5,
            "residual_multiplier": 0.6,
            "logits_scaling": 1.7,
        },
    }
    return AutoConfig.for_model(family, **(sizes | special.get(family, {}) | changes))


def decoder(family: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A random decoder. Weights are larger than usual, so that attention is far from uniform."""
    assert family in FAMILIES
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(text_config(family, **changes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.25)
            elif "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


def full_connector(route: Route, layers: int = LAYERS) -> ConnectorConfig:
    """A connector with every projector, so that any route over `route`'s streams can run."""
    names = [s.name for s in route.streams]
    shape = ProjectorConfig(hidden=16, depth=2)
    return ConnectorConfig(
        frames_per_token=5,
        inputs={name: shape for name in names},
        layers={name: shape for name in names},
        projected_layers={name: tuple(range(layers)) for name in names},
        summary_width=12,
    )


def model(
    route: Route | None = None,
    family: str = "llama",
    seed: int = 0,
    connector: ConnectorConfig | None = None,
    encoder_positions: int = 1500,
    **changes: Any,
) -> PalscopeForConditionalGeneration:
    """A tiny palscope model with every projector, on `route` (PAL by default)."""
    route = Route.pal(LAYERS) if route is None else route
    language_model = decoder(family, seed, **changes)
    torch.manual_seed(seed + 1)
    encoder = build_encoder(
        WhisperEncoderConfig(
            d_model=16,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=24,
            num_mel_bins=8,
            max_source_positions=encoder_positions,
            layers=(1, 2),
        )
    )
    with torch.no_grad():  # large enough that different sounds differ at the decoder
        for name, weight in encoder.named_parameters():
            if weight.ndim > 1 and "embed_positions" not in name:
                weight.normal_(std=0.3)
    made = PalscopeForConditionalGeneration.from_parts(
        language_model,
        encoder,
        route,
        connector or full_connector(route),
        audio_token_id=AUDIO_ID,
    )
    return made.eval()


def both_streams(frames: Any, summary: Any) -> Route:
    """A route over both streams from a cell, or a cell a layer, for each."""
    rows = tuple(
        (stream, tuple(cells) if isinstance(cells, tuple | list) else (cells,) * LAYERS)
        for stream, cells in ((FRAMES, frames), (SUMMARY, summary))
    )
    return Route(LAYERS, rows)


def batch(
    clips: list[list[int]],
    *,
    streams: tuple[Any, ...] = (FRAMES, SUMMARY),
    text: tuple[int, int, int] = (3, 2, 4),
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """A left-padded batch; `clips` gives, for each row, the feature frames of each of its clips.

    A row is `text[0]` words, its clips with `text[1]` words between, and `text[2]` + row words.
    """
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    rows: list[list[int]] = []
    for number, lengths in enumerate(clips):
        row = words(text[0])
        for index, length in enumerate(lengths):
            frames = -(-length // 10)
            row += (words(text[1]) if index else []) + [AUDIO_ID] * sum(
                s.tokens(frames) for s in streams
            )
        rows.append(row + words(text[2] + number))
    width = max(map(len, rows))
    out = {
        "input_ids": torch.tensor([[0] * (width - len(r)) + r for r in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
    }
    flat = [length for lengths in clips for length in lengths]
    if flat:
        features = torch.zeros(len(flat), 8, max(flat))
        for row, length in zip(features, flat, strict=True):
            row[:, :length] = torch.randn(8, length, generator=generator)
        out |= {"input_features": features, "feature_lengths": torch.tensor(flat)}
    return out

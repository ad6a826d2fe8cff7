"""A tiny Qwen3-Omni thinker with the published time structure.

128 mel bins, chunks of 1 s (100 mel frames) that become 13 tokens each, attention in the tower in
windows of 8 s. The decoder has interleaved mrope, and experts in all of its layers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tests.published.tiny.qwen2_5_omni import TEMPLATE, ids_of, loud, tokenizer, without_video

SPECIAL = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "start_token": "<|im_start|>",
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}


def config() -> Qwen3OmniMoeThinkerConfig:
    """Four decoder layers of width 48, four experts of which two run; a tower of two layers."""
    ids = ids_of(SPECIAL)
    given: dict[str, Any] = {
        "audio_config": {
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "d_model": 24,
            "max_source_positions": 1500,
            "n_window": 50,
            "n_window_infer": 800,
            "conv_chunksize": 500,
            "downsample_hidden_size": 4,
            "output_dim": 48,
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 48,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        "text_config": {
            "vocab_size": len(tokenizer(SPECIAL)),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 65536,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            "pad_token_id": ids["pad_token"],
            "eos_token_id": ids["eos_token"],
            "tie_word_embeddings": False,
        },
        "audio_token_id": ids["audio_token"],
        "image_token_id": ids["image_token"],
        "video_token_id": ids["video_token"],
        "audio_start_token_id": ids["audio_bos_token"],
        "audio_end_token_id": ids["audio_eos_token"],
        "vision_start_token_id": ids["vision_bos_token"],
        "vision_end_token_id": ids["vision_eos_token"],
        "position_id_per_seconds": 13,
        "pad_token_id": ids["pad_token"],
        "eos_token_id": ids["eos_token"],
    }
    return Qwen3OmniMoeThinkerConfig(**given)


def model(seed: int = 0) -> Qwen3OmniMoeThinkerForConditionalGeneration:
    """The published class with random weights to which the sound matters."""
    torch.manual_seed(seed)
    return loud(Qwen3OmniMoeThinkerForConditionalGeneration(config()))


def processor() -> Qwen3OmniMoeProcessor:
    """The published processor; its tokenizer knows printable characters one by one."""
    return without_video(
        Qwen3OmniMoeProcessor,
        WhisperFeatureExtractor(feature_size=128),
        tokenizer(SPECIAL),
        TEMPLATE.replace("AUDIO", "<|audio_start|><|audio_pad|><|audio_end|>"),
    )

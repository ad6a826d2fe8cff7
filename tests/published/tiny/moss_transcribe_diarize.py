"""A tiny MOSS-Transcribe-Diarize: Whisper's tower, four frames to a token of 80 ms, a Qwen3."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    MossTranscribeDiarizeConfig,
    MossTranscribeDiarizeFeatureExtractor,
    MossTranscribeDiarizeForConditionalGeneration,
    MossTranscribeDiarizeProcessor,
)

from tests.published.tiny.qwen2_5_omni import TEMPLATE, ids_of, loud, tokenizer
from tests.published.tiny.qwen3_asr import SPECIAL


def config() -> MossTranscribeDiarizeConfig:
    """A tower of two layers of width 24, three decoder layers of width 32."""
    ids = ids_of(SPECIAL)
    return MossTranscribeDiarizeConfig(
        audio_config={
            "model_type": "moss_transcribe_diarize_audio",
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": len(tokenizer(SPECIAL)),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 8192,
            "pad_token_id": ids["pad_token"],
            "eos_token_id": ids["eos_token"],
            "tie_word_embeddings": False,
        },
        audio_token_id=ids["audio_token"],
        tie_word_embeddings=False,
    )


def model(seed: int = 0) -> MossTranscribeDiarizeForConditionalGeneration:
    """Random weights to which the sound matters."""
    torch.manual_seed(seed)
    made: Any = loud(MossTranscribeDiarizeForConditionalGeneration(config()))
    with torch.no_grad():
        made.model.audio_tower.embed_positions.weight.normal_(std=0.3)
        for layer in made.model.audio_tower.layers:
            layer.self_attn.out_proj.weight.mul_(0.2)  # sound stays mostly in place
    return made


def processor() -> MossTranscribeDiarizeProcessor:
    """The published processor; its tokenizer knows printable characters one by one."""
    return MossTranscribeDiarizeProcessor(
        MossTranscribeDiarizeFeatureExtractor(),
        tokenizer(SPECIAL),
        chat_template=TEMPLATE.replace("AUDIO", "<|audio_start|><|audio_pad|><|audio_end|>"),
    )

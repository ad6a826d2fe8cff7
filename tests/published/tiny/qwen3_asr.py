"""A tiny Qwen3-ASR with the published time structure: chunks of 1 s, 13 tokens each."""

from __future__ import annotations

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3ASRConfig,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRProcessor,
)
from transformers.models.qwen3_asr.feature_extraction_qwen3_asr import Qwen3ASRFeatureExtractor

from tests.published.tiny.qwen2_5_omni import ids_of, loud, tokenizer

SPECIAL = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "start_token": "<|im_start|>",
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}

TEMPLATE = """\
{%- macro texts(role) -%}
{%- for message in messages if message.role == role -%}
{%- if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}{%- endfor -%}
{%- endmacro -%}
{{- '<|im_start|>system\\n' + texts('system') + '<|im_end|>\\n<|im_start|>user\\n' -}}
{%- for message in messages if message.content is not string -%}
{%- for part in message.content if part.type == 'audio' -%}
<|audio_start|><|audio_pad|><|audio_end|>
{%- endfor -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- if messages[-1].role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' + texts('assistant') + '<|im_end|>\\n' -}}
{%- endif -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""What the published one writes: of a user's turn the clips alone."""


def config() -> Qwen3ASRConfig:
    """A tower of two layers of width 24, three decoder layers of width 32."""
    ids = ids_of(SPECIAL)
    return Qwen3ASRConfig(
        audio_config={
            "model_type": "qwen3_asr_encoder",
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 40,
            "d_model": 24,
            "output_dim": 32,
            "downsample_hidden_size": 4,
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
            "tie_word_embeddings": False,
        },
        audio_token_id=ids["audio_token"],
        pad_token_id=ids["pad_token"],
        eos_token_id=ids["eos_token"],
        tie_word_embeddings=False,
    )


def model(seed: int = 0) -> Qwen3ASRForConditionalGeneration:
    """Random weights to which the sound matters."""
    torch.manual_seed(seed)
    return loud(Qwen3ASRForConditionalGeneration(config()))


def words() -> PreTrainedTokenizerFast:
    """A tokenizer of printable characters that names the class's marks."""
    made = tokenizer(SPECIAL)
    for name in ("audio_token", "audio_bos_token", "audio_eos_token"):
        setattr(made, name, SPECIAL[name])
    return made


def processor() -> Qwen3ASRProcessor:
    return Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), words(), chat_template=TEMPLATE)

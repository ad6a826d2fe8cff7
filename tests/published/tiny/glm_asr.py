"""A tiny GLM-ASR: a tower with rotary positions, four frames to a token of 80 ms, a Llama.

Clips are cut into windows of 30 s; the last one is as short as the clip leaves it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GlmAsrProcessor,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

SPECIAL = (
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|begin_of_audio|>",
    "<|end_of_audio|>",
    "<|pad|>",  # the place of audio, as published; what pads is the end of text
)
WORDS = ("<unk>", "what", "do", "you", "hear", "?", "say", "again", "and", "in", "this", "sound")
VOCABULARY = 60
AUDIO_TOKEN_ID = VOCABULARY - 1

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'user' -%}
<|user|>
{%- if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content if part.type == 'audio' -%}
<|begin_of_audio|><|pad|><|end_of_audio|><|user|>
{%- endfor -%}
{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- else -%}<|assistant|>{{ message.content }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""


def config() -> GlmAsrConfig:
    return GlmAsrConfig(
        audio_config={
            "model_type": "glmasr_encoder",
            "hidden_size": 24,
            "intermediate_size": 96,  # four frames side by side: the class joins them by this width
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_mel_bins": 128,
            "max_position_embeddings": 1500,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
        },
        text_config={
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "eos_token_id": [0, 1],
            "pad_token_id": 0,
            "bos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        audio_token_id=AUDIO_TOKEN_ID,
        projector_hidden_act="gelu",
    )


def model(seed: int = 0) -> GlmAsrForConditionalGeneration:
    torch.manual_seed(seed)
    made: Any = GlmAsrForConditionalGeneration(config())
    with torch.no_grad():  # large enough that different sounds differ at the decoder
        for name, weight in made.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "embed_tokens" in name:  # the head's too, so not too large
                weight.normal_(std=0.4)
            else:
                # What a place hears of others is small, so sound stays mostly in place.
                spreads = "audio_tower" in name and "o_proj" in name
                weight.normal_(std=(0.1 if spreads else 1.4) / math.sqrt(weight[0].numel()))
    return made.eval()


def tokenizer() -> PreTrainedTokenizerFast:
    ids = {each: number for number, each in enumerate((*SPECIAL[:-1], *WORDS))}
    for number in range(len(ids), AUDIO_TOKEN_ID):
        ids[f"<filler{number}>"] = number
    ids[SPECIAL[-1]] = AUDIO_TOKEN_ID
    whole = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.add_special_tokens([AddedToken(each, special=True) for each in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        eos_token="<|user|>",
    )


def processor() -> GlmAsrProcessor:
    return GlmAsrProcessor(
        WhisperFeatureExtractor(feature_size=128), tokenizer(), chat_template=CHAT_TEMPLATE
    )

"""Qwen2-Audio, tiny and random: the published classes, their real time structure, no files."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from tests.published.tiny.audio_flamingo3 import enlarge

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
)
"""The published tokenizer's special tokens, in its order; here they follow the 256 bytes."""

ID = {token: 256 + place for place, token in enumerate(SPECIAL)}

CHAT_TEMPLATE = (
    "{% set heard = namespace(n=0) %}{% for message in messages %}<|im_start|>{{ message['role'] }}"
    "\n{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'audio' %}{% set heard.n = heard.n + 1 %}"
    "Audio {{ heard.n }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The published template less its default system turn."""


def config() -> Qwen2AudioConfig:
    """Two tower layers of width 24, three decoder layers of width 32; windows of 30 s as ever."""
    return Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": 24,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 40,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": 256 + len(SPECIAL) + 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "tie_word_embeddings": False,
            "bos_token_id": ID["<|endoftext|>"],
            "eos_token_id": ID["<|im_end|>"],
            "pad_token_id": ID["<|endoftext|>"],
        },
        audio_token_index=ID["<|AUDIO|>"],
    )


def model(
    seed: int = 0, shape: Qwen2AudioConfig | None = None
) -> Qwen2AudioForConditionalGeneration:
    """Random weights, large enough that another sound gives other words."""
    torch.manual_seed(seed)
    made = Qwen2AudioForConditionalGeneration(shape or config())
    enlarge(made)
    return made.eval()


def processor() -> Qwen2AudioProcessor:
    """The published processor with a tokenizer of bytes; any text comes back as it went in."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE(vocab={c: place for place, c in enumerate(alphabet)}, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    return Qwen2AudioProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=128),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )

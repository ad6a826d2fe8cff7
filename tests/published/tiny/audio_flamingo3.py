"""Audio Flamingo 3, tiny and random: the published classes, their real time structure, no files."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<sound>",
    "<|sound_bos|>",
    "<|sound_eos|>",
)
"""Special tokens of the published tokenizer; here they follow the 256 bytes."""

ID = {token: 256 + place for place, token in enumerate(SPECIAL)}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] if item['type'] == 'audio' %}<sound>{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ item['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)
"""As the published one, a turn's sound stands before its text, wherever the turn names it.

The published one has a default system turn, and room for one sound a turn.
"""


def config() -> AudioFlamingo3Config:
    """Two tower layers of width 24, three decoder layers of width 32; windows of 30 s as ever."""
    return AudioFlamingo3Config(
        audio_config=audio_config(24), text_config=text_config(), audio_token_id=ID["<sound>"]
    )


def model(seed: int = 0) -> AudioFlamingo3ForConditionalGeneration:
    """Random weights, large enough that another sound gives other words."""
    torch.manual_seed(seed)
    made = AudioFlamingo3ForConditionalGeneration(config())
    enlarge(made)
    return made.eval()


def processor() -> AudioFlamingo3Processor:
    """The published processor with a tokenizer of bytes; any text comes back as it went in."""
    return AudioFlamingo3Processor(
        feature_extractor=WhisperFeatureExtractor(feature_size=128, return_attention_mask=True),
        tokenizer=tokenizer(),
        chat_template=CHAT_TEMPLATE,
    )


# -- what Music Flamingo has too ------------------------------------------------------------------


def audio_config(width: int) -> dict[str, Any]:
    """The tower's config."""
    return {
        "model_type": "audioflamingo3_encoder",
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "num_mel_bins": 128,
        "max_source_positions": 1500,
    }


def text_config() -> dict[str, Any]:
    """The decoder's config: a Qwen2.5."""
    return {
        "model_type": "qwen2",
        "vocab_size": 256 + len(SPECIAL),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": False,
        "bos_token_id": ID["<|endoftext|>"],
        "eos_token_id": ID["<|im_end|>"],
        "pad_token_id": ID["<|endoftext|>"],
    }


def enlarge(made: nn.Module) -> None:
    """Draw weights so large that attention is far from uniform and audio matters."""
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "embed_positions" in name:
                weight.normal_(std=0.3)
            elif "embed_tokens" in name:
                weight.normal_()
            elif weight.ndim > 1:
                weight.normal_(std=1.5 / weight[0].numel() ** 0.5)
            elif "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE(vocab={c: place for place, c in enumerate(alphabet)}, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )

"""Moonshine, tiny and random: heads that its class pads, and clips of any length, no files."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

MARKS = ("<unk>", "<s>", "</s>")


def config() -> MoonshineConfig:
    """Two encoder layers and three of the decoder: a count of one is not that of the other."""
    return MoonshineConfig(
        vocab_size=256 + len(MARKS),
        hidden_size=32,
        intermediate_size=40,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=3,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        pad_head_dim_to_multiple_of=12,
        max_position_embeddings=40,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
        },
        pad_token_id=2,
    )


def model(seed: int = 0) -> MoonshineForConditionalGeneration:
    """Random weights, large enough that another sound gives other words."""
    torch.manual_seed(seed)
    made = MoonshineForConditionalGeneration(config())
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "embed_tokens" in name:
                weight.normal_()
            elif weight.ndim > 1:
                weight.normal_(std=1.5 / weight[0].numel() ** 0.5)
            elif "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    made.generation_config.suppress_tokens = [65]
    made.generation_config.begin_suppress_tokens = [66]
    return made.eval()


def processor() -> Wav2Vec2Processor:
    """The published processor with a tokenizer of bytes; any text comes back as it went in."""
    words = [*MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    built = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=built, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    return Wav2Vec2Processor(Wav2Vec2FeatureExtractor(do_normalize=False), tokenizer)

"""Whisper, tiny and random: the published class, windows of 30 s as ever, no files."""

from __future__ import annotations

import torch
from tokenizers import pre_tokenizers
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from tests.published.tiny.audio_flamingo3 import enlarge

MARKS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|notimestamps|>",
)
"""Some of the published tokenizer's, in its order; here they follow the 256 bytes."""
TIMES = tuple(f"<|{0.02 * step:.2f}|>" for step in range(1501))
ID = {token: 256 + place for place, token in enumerate((*MARKS, *TIMES))}


def config(decoder_layers: int = 3) -> WhisperConfig:
    """Two encoder layers and three of the decoder: a count of one is not that of the other."""
    return WhisperConfig(
        vocab_size=256 + len(ID),
        d_model=32,
        encoder_layers=2,
        decoder_layers=decoder_layers,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=48,
        max_target_positions=40,
        bos_token_id=ID["<|endoftext|>"],
        eos_token_id=ID["<|endoftext|>"],
        pad_token_id=ID["<|endoftext|>"],
        decoder_start_token_id=ID["<|startoftranscript|>"],
        suppress_tokens=[],
        begin_suppress_tokens=None,
    )


def model(seed: int = 0) -> WhisperForConditionalGeneration:
    """Random weights, large enough that another sound gives other words."""
    torch.manual_seed(seed)
    made = WhisperForConditionalGeneration(config())
    enlarge(made)
    made.generation_config.suppress_tokens = [ID["<|en|>"], 65]
    made.generation_config.begin_suppress_tokens = [66]
    return made.eval()


def processor() -> WhisperProcessor:
    """The published processor with a tokenizer of bytes; any text comes back as it went in."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(vocab={c: place for place, c in enumerate(alphabet)}, merges=[])
    tokenizer.add_tokens(list(MARKS), special_tokens=True)
    tokenizer.add_tokens(list(TIMES))
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer)

"""The tokenizer and the settings of generation of a Whisper in CTranslate2's format.

CTranslate2 keeps of both what its own decoding needs: marks, suppressed tokens, languages, and the
heads by which OpenAI aligns words with seconds. Here they are written as `transformers` has them.
"""

from __future__ import annotations

import json
from typing import Any, cast

from tokenizers import Tokenizer
from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer

from palscope.encoders._whisper_words import MULTILINGUAL, TIMES
from palscope.errors import CheckpointError


def whisper_texts(
    files: dict[str, bytes], config: WhisperConfig, source: Any
) -> tuple[WhisperTokenizer, GenerationConfig]:
    """Both, of the files beside a `model.bin`.

    Args:
        files: by name, `tokenizer.json` and `config.json` among them.
        config: of the model.
        source: for messages.

    Raises:
        CheckpointError: a file is missing, or the tokenizer is of another vocabulary.
    """
    if missing := [name for name in ("tokenizer.json", "config.json") if name not in files]:
        raise CheckpointError(
            f"{source} holds no {' and no '.join(missing)}, which the whole model needs beside "
            "model.bin."
        )
    tokenizer = _tokenizer(Tokenizer.from_buffer(files["tokenizer.json"]), config, source)
    return tokenizer, _generation(json.loads(files["config.json"]), config, tokenizer)


def _tokenizer(given: Tokenizer, config: WhisperConfig, source: Any) -> WhisperTokenizer:
    """With the times behind all other words, which some files leave out."""
    model = json.loads(given.to_str())["model"]
    marks = [
        each.content
        for _, each in sorted(given.get_added_tokens_decoder().items())
        if each.content.startswith("<|") and each.content not in TIMES
    ]
    merges = [tuple(pair) for pair in model["merges"]]
    made = WhisperTokenizer(vocab=model["vocab"], merges=cast(Any, merges))
    made.add_tokens([mark for mark in marks if mark not in made.get_vocab()], special_tokens=True)
    made.add_tokens(list(TIMES))
    ids = {mark: given.token_to_id(mark) for mark in marks}
    if len(made) != config.vocab_size or ids != {m: made.convert_tokens_to_ids(m) for m in marks}:
        raise CheckpointError(
            f"{source}: the tokenizer has {len(made)} words with its times, the model embeds "
            f"{config.vocab_size}; they are of two checkpoints."
        )
    return made


def _generation(
    given: dict[str, Any], config: WhisperConfig, tokenizer: WhisperTokenizer
) -> GenerationConfig:
    """As OpenAI's checkpoints on the hub have it."""

    def number(mark: str) -> int:
        return int(cast(Any, tokenizer.convert_tokens_to_ids(mark)))

    multilingual = config.vocab_size >= MULTILINGUAL
    settings: dict[str, Any] = {
        "alignment_heads": given["alignment_heads"],
        "begin_suppress_tokens": given["suppress_ids_begin"],
        "suppress_tokens": given["suppress_ids"],
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "is_multilingual": multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": config.max_target_positions,
        "no_timestamps_token_id": number("<|notimestamps|>"),
        "prev_sot_token_id": number("<|startofprev|>"),
        "return_timestamps": False,
    }
    if multilingual:
        named = {tokenizer.convert_ids_to_tokens(each): each for each in given["lang_ids"]}
        settings["lang_to_id"] = named
        settings["task_to_id"] = {
            task: number(f"<|{task}|>") for task in ("transcribe", "translate")
        }
    return GenerationConfig(**settings)

"""Voxtral's processor files as the hub has them: mistral-common's tokenizer file, here of bytes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from transformers import VoxtralConfig

from tests.published.tiny import voxtral

MARKS = {number: mark for mark, number in voxtral.SPECIAL.items()}


def write_tekken(folder: Path, *, old: bool = False) -> None:
    """The config and the processor files; the old form does not name its special tokens."""
    special = [
        {"rank": number, "token_str": MARKS.get(number, f"<SPECIAL_{number}>"), "is_control": True}
        for number in range(40)
    ]
    vocabulary = [
        {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode(), "token_str": None}
        for i in range(256)
    ]
    settings = {
        "pattern": r"\S+|\s+",
        "default_vocab_size": 296,
        "default_num_special_tokens": 40,
        "version": "v13",
    }
    tekken = {"config": settings, "vocab": vocabulary} | (
        {} if old else {"special_tokens": special}
    )
    (folder / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    config().save_pretrained(folder)
    voxtral.processor().feature_extractor.save_pretrained(folder)


def config() -> VoxtralConfig:
    """The tiny one's, with as many words as the tokenizer."""
    made = voxtral.config()
    made.text_config.vocab_size = 296
    return made

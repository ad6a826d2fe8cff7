"""Small bases on disk, and questions about tones: for trainings that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperModel

from tests import tiny

WORDS = ("<pad>", "<end>", "<unknown>", "which", "tone", "is", "this", "low", "high", "middle")
RATE = 16_000
PITCH = {"low": 200.0, "middle": 800.0, "high": 3000.0}


def write_bases(folder: Path) -> dict[str, Any]:
    """A Llama of four layers and a Whisper of two, random: a recipe's `bases`."""
    words = {word: number for number, word in enumerate(WORDS)}
    whole = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<unknown>", pad_token="<pad>", eos_token="<end>"
    )
    tokenizer.save_pretrained(folder / "text")
    tiny.decoder("llama", vocab_size=len(WORDS), eos_token_id=1).save_pretrained(folder / "text")
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=8,
        num_mel_bins=8,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=1,
        init_std=0.3,
    )
    WhisperModel(config).save_pretrained(folder / "sound")
    return {
        "text": str(folder / "text"),
        "encoder": str(folder / "sound"),
        "encoder_layers": [1, 2],
    }


def write_questions(folder: Path, each: int = 8) -> Path:
    """A CSV of questions about tones of three pitches, `each` clips of every one."""
    rng = np.random.default_rng(0)
    lines = ["path,question,answer,domain,task,split"]
    for name, pitch in PITCH.items():
        for take in range(each):
            time = np.arange(round(rng.uniform(0.2, 0.5) * RATE)) / RATE
            tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * time)
            sf.write(folder / f"{name}{take}.wav", tone, RATE)
            domain = "edge" if name != "middle" else "centre"
            lines.append(f"{name}{take}.wav,which tone is this,{name},{domain},pitch,train")
    file = folder / "questions.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def recipe(bases: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A recipe of one stage; `changes` replace sections, or keys of `every_stage`."""
    whole: dict[str, Any] = {
        "bases": bases,
        "route": "pal",
        "connector": {"inputs": {"hidden": 16}, "layers": {"hidden": 16}, "summary_width": 12},
        "standardise_over": 8,
        "data": {"format": "csv"},
        "samples": {"every": 0},
        "every_stage": {
            "steps": 4,
            "batch": 4,
            "learning_rate": 1e-2,
            "log_every": 1,
            "save_every": 2,
        },
        "stages": {"first": {}},
    }
    for name, value in changes.items():
        if name in (*whole, "prompt"):
            whole[name] = value
        else:
            whole["every_stage"][name] = value
    return whole


def write_recipe(file: Path, content: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file

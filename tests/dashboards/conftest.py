"""A tiny checkpoint that the page can open: random weights, the demo's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, WhisperFeatureExtractor

import tests.tiny as tiny
from palscope.models import PalscopeProcessor
from palscope.models.base_weights import find_base


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))
    processor = PalscopeProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer, 10, (1, 3))
    model = tiny.model(vocab_size=49152, eos_token_id=2)
    model.config.audio_token_id = processor.audio_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

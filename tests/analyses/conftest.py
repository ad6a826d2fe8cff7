"""A tiny checkpoint that the scripts can open."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, WhisperFeatureExtractor

from palscope.models import PalscopeProcessor
from palscope.models.base_weights import find_base
from palscope.routing import Route
from tests import tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))
    model = tiny.model(Route.pal(tiny.LAYERS, [0, 2]), vocab_size=49152)
    processor = PalscopeProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer, 10, [1, 3])
    model.config.audio_token_id = processor.audio_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

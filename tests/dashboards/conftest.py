"""Tiny checkpoints that the page can open: random weights, the demo's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, WhisperFeatureExtractor

import tests.tiny as tiny
from palscope.models import PalscopeProcessor
from palscope.models.base_weights import find_base
from palscope.routing import Route


def saved(route: Route, folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))
    ratios = [stream.ratio for stream in route.streams]
    processor = PalscopeProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer, 10, ratios)
    model = tiny.model(route, vocab_size=49152)
    model.config.audio_token_id = processor.audio_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.pal(tiny.LAYERS), tmp_path_factory.mktemp("pal"))


@pytest.fixture(scope="session")
def plits_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Route.plits(tiny.LAYERS), tmp_path_factory.mktemp("plits"))

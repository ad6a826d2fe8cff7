"""A tiny checkpoint that the scripts can open, and the scripts as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, WhisperFeatureExtractor

from palscope._models import PalscopeProcessor
from palscope._models.base_weights import find_base
from palscope._routing import Route
from tests import tiny

ANALYSES = Path(__file__).parents[2] / "analyses"


def open_script(name: str) -> Any:
    """The script of that name as a module of its own, so that a test may change it."""
    spec = importlib.util.spec_from_file_location(f"{name}_command", ANALYSES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass of the script looks for it
    spec.loader.exec_module(module)
    return module


def call(script: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The script's exit status, run with these arguments."""
    monkeypatch.setattr(sys, "argv", [Path(script.__file__).name, *map(str, arguments)])
    return script.main()


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

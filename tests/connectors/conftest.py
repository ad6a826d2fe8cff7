"""The demo's tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from palscope.models.base_weights import find_base


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))

"""The page of published models: its table is what the classes say, and its recipe works."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

import palscope
from palscope._published import registry
from palscope._published.table import models_table
from palscope.errors import CheckpointError
from tests.docs.pages import DOCS
from tests.published.tiny import qwen3_asr, qwen3_omni
from tests.published.tiny.qwen2_5_omni import loud

PAGE = (DOCS / "models.md").read_text(encoding="utf-8")
RATE = 16_000


def test_the_table_is_what_the_classes_say() -> None:
    wanted = models_table()
    found = re.search(r"<!-- table: .*? -->\n(.*?)\n?<!-- end -->", PAGE, re.DOTALL)
    assert found is not None and found[1] == wanted, f"the table should be:\n{wanted}"


class MyASRConfig(Qwen3ASRConfig):
    """Of a class that palscope does not know."""

    model_type = "my_asr"


class MyASRForConditionalGeneration(Qwen3ASRForConditionalGeneration):
    """Qwen3-ASR under another name."""

    config_class = MyASRConfig


def tiny() -> Any:
    torch.manual_seed(0)
    settings = {k: v for k, v in qwen3_asr.config().to_dict().items() if k != "model_type"}
    return loud(MyASRForConditionalGeneration(MyASRConfig(**settings)))


def test_a_class_is_added_from_outside_in_under_a_hundred_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    template = qwen3_omni.TEMPLATE.replace("AUDIO", "<|audio_start|><|audio_pad|><|audio_end|>")
    own = qwen3_asr.processor()
    own.chat_template = template
    with pytest.raises(CheckpointError, match="register_published"):
        palscope.load(tiny(), processor=own)
    (recipe,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(recipe.splitlines()) < 100
    exec(recipe, {"__name__": "outside"})

    hooked = palscope.load(tiny(), processor=own)
    clip = 0.1 * np.random.default_rng(0).normal(size=round(2.3 * RATE)).astype(np.float32)
    inputs = hooked.inputs("what?", clip)
    text = hooked.processor.chat("what?")
    theirs = own(text=text, audio=clip, sampling_rate=RATE)
    assert torch.equal(inputs["input_ids"], theirs["input_ids"])
    plain = tiny()
    with torch.no_grad():
        wanted = plain(**theirs).logits
        got, cache = hooked.run_with_cache(inputs, names_filter=["audio_blocks.1.hook_out"])
        torch.testing.assert_close(got, wanted, atol=5e-5, rtol=0)
        other = plain(**own(text=text, audio=clip[::-1].copy(), sampling_rate=RATE)).logits
    assert (other - wanted).abs().max() > 0.01
    assert cache["audio_blocks.1.hook_out"].numel() > 0
    spans = hooked.layout(inputs).table(0)
    assert (spans["stream"] == "frames").sum() == 2 * 13 + 4
    wrote = hooked.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(wrote, plain.generate(**theirs, max_new_tokens=4, do_sample=False))

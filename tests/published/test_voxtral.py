"""What is particular to Voxtral, beside the contract: its tokenizer, and tokens of silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, VoxtralForConditionalGeneration

import palscope
from palscope._published import published_family
from palscope._published.loading import read_processor, wrap_published
from palscope.errors import CheckpointError
from tests.published.contract import RATE, WORDS, noise
from tests.published.folders.tekken import config, write_tekken
from tests.published.tiny import voxtral


def test_the_hub_s_tokenizer_is_read_without_mistral_common(tmp_path: Path) -> None:
    write_tekken(tmp_path)
    processor = read_processor(tmp_path, published_family(voxtral.config()))
    got: Any = processor(processor.chat("hm", 2), [noise(0.4), noise(31.0)], sampling_rate=RATE)
    clip = [25, *[24] * 375]
    letters = [40 + ord(letter) for letter in "hm"]
    assert got["input_ids"].tolist() == [[1, 3, *clip, 25, *[24] * 750, *letters, 4]]


def test_a_folder_as_the_hub_has_it_opens(tmp_path: Path) -> None:
    write_tekken(tmp_path)
    VoxtralForConditionalGeneration(config()).save_pretrained(tmp_path)
    hooked: Any = palscope.load(tmp_path)
    assert hooked.layout(inputs := hooked.inputs("hm", noise(0.4))).clip_row == (0,)
    assert hooked(inputs).isfinite().all()


def test_a_tokenizer_that_reads_no_marks_is_refused(tmp_path: Path) -> None:
    write_tekken(tmp_path, old=True)
    with pytest.raises(CheckpointError, match="mistral-common"):
        read_processor(tmp_path, published_family(voxtral.config()))

    class Deaf(PreTrainedTokenizerFast):
        """As mistral-common's, which takes marks for words."""

        def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(text.replace("[", "[ "), *args, **kwargs)

    own = voxtral.processor()
    own.tokenizer.__class__ = Deaf
    with pytest.raises(CheckpointError, match=r"reads \[AUDIO\] as .*folder or hub id"):
        wrap_published(voxtral.model(), own)


@torch.no_grad()
def test_silence_behind_a_clip_has_tokens_and_seconds_of_its_own() -> None:
    hooked: Any = palscope.load(voxtral.model(), processor=voxtral.processor())
    inputs = hooked.inputs(WORDS[0], noise(1.3))
    layout = hooked.layout(inputs)
    spans = layout.seconds[layout.stream == 0]
    assert len(spans) == 375 and spans[-1].tolist() == pytest.approx([29.92, 30.0])
    tokens = hooked.encode_audio(inputs).streams["frames"][0]
    other = hooked.encode_audio(hooked.inputs(WORDS[0], noise(1.3, 1))).streams["frames"][0]
    moved = (tokens - other).norm(dim=1)
    assert moved[:16].min() > 3 * moved[18:].median()

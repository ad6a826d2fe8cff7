"""Models that transformers loaded and that are handed over: adapters, tokenizers, versions."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from transformers import (
    AutoModel,
    GraniteSpeechForConditionalGeneration,
    Phi4MultimodalForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2AudioProcessor,
)
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nVisionConfig

import palscope
from palscope._published import published_family
from palscope._published.gemma3n import BlindTower
from palscope.errors import CheckpointError
from tests.published.contract import noise
from tests.published.tiny import (
    gemma3n,
    granite_speech,
    music_flamingo,
    phi4_multimodal,
    qwen2_audio,
)


def test_a_model_without_the_adapter_it_hears_with_is_refused() -> None:
    deaf = Phi4MultimodalForCausalLM(phi4_multimodal.config())
    with pytest.raises(CheckpointError, match=r"no adapter called speech.*load_adapter"):
        palscope.load(deaf, processor=phi4_multimodal.processor())
    other = phi4_multimodal.model()
    other.set_adapter("vision")
    other.delete_adapter("speech")
    with pytest.raises(CheckpointError, match="no adapter called speech"):
        palscope.load(other, processor=phi4_multimodal.processor())
    granite = GraniteSpeechForConditionalGeneration(granite_speech.config())
    with pytest.raises(CheckpointError, match=r"hears with an adapter.*has_lora_adapter = False"):
        palscope.load(granite, processor=granite_speech.processor())
    granite.config.has_lora_adapter = False
    palscope.load(granite, processor=granite_speech.processor())


@pytest.mark.parametrize("puts", [None, True], ids=["has a start mark", "puts it"])
def test_a_tokenizer_with_a_start_mark_serves_again_and_again(puts: bool | None) -> None:
    """One that was made in memory has no name by which it could be made anew."""
    made = qwen2_audio.processor()
    marks: dict[str, Any] = {"add_bos_token": True} if puts else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made.tokenizer.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        **marks,
    )
    assert "name_or_path" not in tokenizer.init_kwargs
    own = Qwen2AudioProcessor(made.feature_extractor, tokenizer, qwen2_audio.CHAT_TEMPLATE)
    said: list[list[int]] = []
    for _ in range(2):
        hooked: Any = palscope.load(qwen2_audio.model(), processor=own)
        said.append(hooked.inputs("what?", noise(0.3))["input_ids"].tolist())
        assert hooked.to_tokens("what?").shape[0] == 1
    again: Any = palscope.load(qwen2_audio.model(), processor=hooked.processor)
    assert said[0] == said[1] == again.inputs("what?", noise(0.3))["input_ids"].tolist()


def test_an_older_transformers_is_told_not_met_as_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "__version__", "5.17.0")
    with pytest.raises(CheckpointError, match=r"needs transformers 5\.20 or newer; 5\.17\.0 is"):
        palscope.load(music_flamingo.model(), processor=music_flamingo.processor())
    palscope.load(qwen2_audio.model(), processor=qwen2_audio.processor())


def test_the_blind_tower_is_registered_while_a_model_is_opened_alone() -> None:
    known: dict[Any, Any] = AutoModel._model_mapping._extra_content
    kept = known.pop(Gemma3nVisionConfig, None)  # the tiny model's, for its own sake
    if kept is None:
        pytest.skip("this transformers keeps its own class for its own config")
    family = published_family(gemma3n.config())
    try:
        with family.loading():
            assert known[Gemma3nVisionConfig] is BlindTower
        assert Gemma3nVisionConfig not in known
        known[Gemma3nVisionConfig] = kept
        with pytest.raises(ZeroDivisionError), family.loading():
            raise ZeroDivisionError
        assert known[Gemma3nVisionConfig] is kept
    finally:
        known[Gemma3nVisionConfig] = kept

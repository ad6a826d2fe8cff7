"""Granite Speech: clips alone, windows of three latents, its logits, its adapter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GraniteForCausalLM
from transformers.utils.import_utils import is_torchaudio_available

import palscope
from palscope._published import PublishedAudioModel, published_family
from palscope.errors import CheckpointError
from tests.published.tiny import granite_speech as tiny

RATE = 16_000
WORDS = "what do you hear ?"


def noise(seconds: float, seed: int = 0) -> Any:
    made = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (0.1 * made).astype(np.float32)


@pytest.fixture(scope="module")
def hooked() -> Any:
    return palscope.load(tiny.model(), processor=tiny.processor())


@pytest.fixture
def plain() -> Any:
    return tiny.model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("granite")
    model = tiny.model()
    PublishedAudioModel(model, published_family(model.config)).save_pretrained(path)
    tiny.processor().save_pretrained(path)
    return path


def alone(plain: Any, text: str, clips: list[Any]) -> Tensor:
    """The plain class's logits of a prompt, of which every clip was encoded by itself."""
    processor = tiny.processor()
    if not clips:
        return plain(**processor(text, return_tensors="pt")).logits[0]
    ids = processor(text, clips, return_tensors="pt")["input_ids"]
    sound = ids == tiny.AUDIO_TOKEN_ID
    embedded = plain.get_input_embeddings()(ids.masked_fill(sound, 0))
    features = [processor.audio_processor([clip])["input_features"] for clip in clips]
    embedded[sound] = torch.cat([plain.get_audio_features(x).pooler_output[0] for x in features])
    return plain(inputs_embeds=embedded).logits[0]


@torch.no_grad()
def test_clips_of_any_lengths_are_each_heard_as_if_alone(hooked: Any, plain: Any) -> None:
    clips = [noise(1.3), noise(7.9, 1), noise(5.2, 2)]
    texts = [f"<|audio|> {WORDS}", f"<|audio|> and <|audio|> {WORDS}", "say this"]
    batch = dict(hooked.processor(texts, clips, sampling_rate=RATE))
    logits = hooked(batch)
    for row, mine in enumerate((clips[:1], clips[1:], [])):
        wanted = alone(plain, texts[row], mine)
        real = batch["attention_mask"][row].bool()
        torch.testing.assert_close(logits[row][real], wanted, atol=2e-5, rtol=0)
    # Beside a longer clip the plain class hears something else.
    together = tiny.processor().audio_processor(clips[:2])["input_features"]
    padded = plain.get_audio_features(together).pooler_output[0, :15]
    own = plain.get_audio_features(
        tiny.processor().audio_processor(clips[:1])["input_features"]
    ).pooler_output[0]
    assert (padded - own).norm() > 0.1 * own.norm()


@torch.no_grad()
def test_logits_are_not_divided_unlike_those_of_the_decoder_s_own_class(hooked: Any) -> None:
    inputs = hooked.inputs(WORDS)
    model: Any = tiny.model()
    model.disable_adapters()
    decoder = GraniteForCausalLM(model.config.text_config).eval()
    decoder.model, decoder.lm_head = model.model.language_model, model.lm_head
    ours = hooked(inputs)
    theirs = decoder(input_ids=inputs["input_ids"]).logits
    torch.testing.assert_close(ours, 8 * theirs, atol=1e-5, rtol=0)
    assert hooked.model.logits_divisor == 1


def test_three_latents_share_each_300_ms(hooked: Any) -> None:
    inputs = hooked.inputs(WORDS, noise(1.3))
    spans = hooked.layout(inputs).seconds[inputs["input_ids"] == tiny.AUDIO_TOKEN_ID]
    starts = [0.0, 0.3, 0.6, 0.9, 1.2]
    wanted = [[start, min(start + 0.3, 1.3)] for start in starts for _ in range(3)]
    np.testing.assert_allclose(spans, wanted, atol=1e-6)


@torch.no_grad()
def test_each_cross_attention_reads_the_window_with_three_latents(hooked: Any) -> None:
    inputs = hooked.inputs(WORDS, noise(1.0))
    _, cache = hooked.run_with_cache(inputs)
    for layer, windows in enumerate((1, 4)):  # below the first nothing tells windows apart
        assert cache[f"audio_qformer.{layer}.cross_attn.q.hook_out"].shape == (windows, 3, 16)
        assert cache[f"audio_qformer.{layer}.cross_attn.k.hook_out"].shape == (4, 15, 16)
        assert cache[f"audio_blocks.{layer}.hook_out"].shape == (1, 50, 24)


def test_a_layer_s_output_is_kept_as_it_left_the_layer(hooked: Any) -> None:
    """The tower adds the CTC head's guess to the first layer's output in place."""
    inputs = hooked.inputs(WORDS, noise(1.0))
    names = ["audio_blocks.0.ln.hook_out", "audio_blocks.0.hook_out", "audio_blocks.1.hook_in"]
    _, cache = hooked.run_with_cache(inputs, names_filter=names)
    normed, left, entered = (cache[name] for name in names)
    assert torch.equal(left, normed)
    assert (entered - left).abs().max() > 0.1
    # And a gradient comes to it: autograd lets no one write over what a hook has seen.
    seen: list[Tensor] = []
    point = hooked.hook_point("audio_blocks.0.hook_out")
    point.add_hook(lambda gradient, hook: seen.append(gradient), dir="bwd")
    try:
        heard = {**inputs, "input_features": inputs["input_features"].requires_grad_()}
        hooked(heard)[0, -1].sum().backward()
    finally:
        point.remove_hooks("bwd")
        hooked.model.zero_grad()
    assert seen[0].abs().max() > 0


@torch.no_grad()
def test_the_adapter_is_on_for_sound_off_for_text_and_left_so(plain: Any) -> None:
    processor = tiny.processor()
    model: Any = tiny.model()
    hooked = palscope.load(model, processor=tiny.processor())
    text = hooked.processor("say this")
    sound = hooked.inputs(WORDS, noise(1.3))
    given = processor(hooked.processor.chat(WORDS), [noise(1.3)], return_tensors="pt")
    on = {"text": plain(**text).logits, "sound": plain(**given).logits}
    plain.disable_adapters()
    off = {"text": plain(**text).logits, "sound": plain(**given).logits}
    assert min((on[name] - off[name]).abs().max() for name in on) > 0.1
    for _ in range(2):
        torch.testing.assert_close(hooked(text), off["text"], atol=1e-5, rtol=0)
        torch.testing.assert_close(hooked(sound), on["sound"], atol=2e-5, rtol=0)
    hooked(text)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 6 and all(layer.disable_adapters for layer in layers)


@torch.no_grad()
def test_each_question_is_answered_as_the_class_answers_it(plain: Any) -> None:
    hooked = palscope.load(tiny.model(), processor=tiny.processor())
    asked = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    for clips in ([noise(2.3)], [], [noise(1.0, 1)]):  # the class switches its adapter each time
        inputs = hooked.inputs(WORDS, *clips)
        text = hooked.processor.chat(WORDS, len(clips))
        given = tiny.processor()(text, clips or None, return_tensors="pt")
        wanted = plain.generate(**given, **asked)
        assert torch.equal(hooked.model.generate(**inputs, **asked), wanted)


# -- files ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_an_opened_folder_hears_with_its_adapter(folder: Path, hooked: Any) -> None:
    again = palscope.load(folder)
    inputs = again.inputs(WORDS, noise(1.3))
    assert torch.equal(inputs["input_ids"], hooked.inputs(WORDS, noise(1.3))["input_ids"])
    torch.testing.assert_close(again(inputs), hooked(inputs), atol=1e-6, rtol=0)


def test_a_folder_without_the_adapter_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.iterdir():
        if not file.name.startswith("adapter_"):
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match="no adapter_config"):
        palscope.load(tmp_path)
    monkeypatch.setattr("palscope._published.adapters.is_peft_available", lambda: False)
    with pytest.raises(CheckpointError, match=r"pip install 'palscope\[training\]'"):
        palscope.load(folder)


def test_a_peft_that_transformers_does_not_take_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palscope._published.adapters.MIN_PEFT_VERSION", "999.1")
    with pytest.raises(CheckpointError, match=r"peft >= 999.1 is needed by transformers"):
        palscope.load(folder)


def test_an_adapter_that_lacks_a_tensor_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    adapter = tmp_path / "adapter_model.safetensors"
    tensors = load_file(adapter)
    tensors.pop(sorted(tensors)[0])
    adapter.unlink()
    save_file(tensors, adapter, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing"):
        palscope.load(tmp_path)


@torch.no_grad()
def test_a_model_without_an_adapter_needs_none(tmp_path: Path) -> None:
    config = copy.deepcopy(tiny.config())
    config.has_lora_adapter = False
    model: Any = type(tiny.model())(config).eval()
    tiny.processor().save_pretrained(tmp_path)
    wrapped = PublishedAudioModel(model, published_family(config))
    wrapped.save_pretrained(tmp_path)
    again = palscope.load(tmp_path)
    inputs = again.inputs(WORDS, noise(1.3))
    torch.testing.assert_close(again(inputs), wrapped(**inputs).logits, atol=1e-5, rtol=0)


@pytest.mark.skipif(is_torchaudio_available(), reason="torchaudio is installed")
def test_without_torchaudio_the_message_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.granite_speech import feature_extraction_granite_speech as published
    from transformers.utils.import_utils import requires_backends

    monkeypatch.setattr(published, "requires_backends", requires_backends)
    with pytest.raises(CheckpointError, match="pip install torchaudio"):
        palscope.load(folder)

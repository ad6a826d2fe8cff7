"""Phi-4-multimodal: clips alone, windows of 40 s, adapters on every path, longrope."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import palscope
from palscope import measures
from palscope._models.resumed import resume, run_plainly
from palscope._published import PublishedAudioModel, PublishedProcessor, published_family
from palscope.errors import CheckpointError, PromptError
from palscope.interventions._cells import with_encoded
from palscope.measures._key_writes import attention_writes
from tests.double import CLOSE, Double, as_default, doubled
from tests.published.tiny import phi4_multimodal as tiny

RATE = 16_000
WORDS = "what?"


def noise(seconds: float, seed: int = 0) -> Any:
    made = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (0.1 * made).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Generator[None, None, None]:
    with Double():
        yield


@pytest.fixture(scope="module")
def hooked() -> Any:
    return palscope.load(doubled(tiny.model), processor=tiny.processor())


@pytest.fixture(scope="module")
def plain() -> Any:
    return doubled(tiny.model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phi4")
    model = doubled(tiny.model)
    PublishedAudioModel(model, published_family(model.config)).save_pretrained(path)
    tiny.processor().save_pretrained(path)
    return path


def given(text: str, clips: list[Any]) -> dict[str, Tensor]:
    heard = {"audio": clips, "sampling_rate": RATE} if clips else {}
    return as_default(tiny.processor()(text=text, return_tensors="pt", **heard))


def with_adapter(plain: Any, name: str | None, inputs: dict[str, Tensor]) -> Tensor:
    plain.enable_adapters()
    plain.set_adapter(name or "speech")
    if name is None:
        plain.disable_adapters()
    return plain(**inputs).logits


@torch.no_grad()
def test_clips_of_any_lengths_are_each_heard_as_if_alone(hooked: Any, plain: Any) -> None:
    clips = [noise(1.3), noise(7.9, 1), noise(7.9, 2)]
    texts = [f"<|audio|>{WORDS}", f"<|audio|> and <|audio|>{WORDS}", "say this"]
    batch = dict(hooked.processor(texts, clips, sampling_rate=RATE))
    logits = hooked(batch)
    for row, mine in enumerate((clips[:1], clips[1:], [])):
        wanted = with_adapter(plain, "speech", given(texts[row], mine))[0]
        real = batch["attention_mask"][row].bool()
        torch.testing.assert_close(logits[row][real], wanted, **CLOSE)


@torch.no_grad()
def test_a_clip_of_several_windows_is_the_class_s(hooked: Any, plain: Any) -> None:
    clip = noise(41.3)
    inputs = hooked.inputs(WORDS, clip)
    text = hooked.processor.chat(WORDS)
    wanted = with_adapter(plain, "speech", given(text, [clip]))
    got, cache = hooked.run_with_cache(inputs, names_filter="audio_blocks.1.hook_out")
    torch.testing.assert_close(got, wanted, **CLOSE)
    # The tower's tensor holds the windows one after the other, filled up at the end.
    assert cache["audio_blocks.1.hook_out"].shape == (2, 500, 24)
    sound = inputs["input_ids"] == hooked.model.audio_token_id
    spans = hooked.layout(inputs).seconds[sound]
    assert int(sound.sum()) == 516
    np.testing.assert_allclose(spans[500], [40.0, 40.08], atol=1e-4)
    np.testing.assert_allclose(spans[-1], [41.2, 41.28], atol=1e-4)


def test_the_last_token_ends_where_its_last_frame_does(hooked: Any) -> None:
    inputs = hooked.inputs(WORDS, noise(1.0))
    spans = hooked.layout(inputs).seconds[inputs["input_ids"] == hooked.model.audio_token_id]
    assert len(spans) == 13
    np.testing.assert_allclose(spans[-1], [0.96, 0.995], atol=1e-6)


# -- adapters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listened",
    [None, "blocks.1.attn.hook_pattern", "blocks.0.attn.hook_q", "blocks.1.mlp.hook_post", "all"],
)
@torch.no_grad()
def test_adapters_count_whoever_listens(hooked: Any, plain: Any, listened: str | None) -> None:
    clip = noise(1.3)
    text = hooked.processor.chat(WORDS)
    silent = hooked.processor("say this")
    wanted = {
        "sound": with_adapter(plain, "speech", given(text, [clip])),
        "text": with_adapter(plain, None, dict(silent)),
    }
    without = with_adapter(plain, None, given(text, [clip]))
    assert (without - wanted["sound"]).abs().max() > 1
    for name, inputs in (("sound", hooked.inputs(WORDS, clip)), ("text", silent)):
        if listened is None:
            got = hooked(inputs)
        elif listened == "all":
            got, _ = hooked.run_with_cache(inputs)
        else:
            got, _ = hooked.run_with_cache(inputs, names_filter=listened)
        torch.testing.assert_close(got, wanted[name], **CLOSE)


@torch.no_grad()
def test_another_adapter_gives_way_to_that_for_speech(plain: Any) -> None:
    model = doubled(tiny.model)
    model.set_adapter("vision")
    hooked = palscope.load(model, processor=tiny.processor())
    clip = noise(1.3)
    wanted = with_adapter(plain, "speech", given(hooked.processor.chat(WORDS), [clip]))
    torch.testing.assert_close(hooked(hooked.inputs(WORDS, clip)), wanted, **CLOSE)
    hooked(hooked.inputs("say this"))
    assert model.active_adapters() == ["speech"]  # left as the last call needed it


@torch.no_grad()
def test_frozen_keys_have_the_adapter_s_part(hooked: Any) -> None:
    """The keys of frozen sound are made by rows of the fused projection alone."""
    inputs = hooked.inputs(WORDS, noise(1.3))
    names = ["blocks.1.attn.hook_k", "blocks.1.attn.hook_v"]
    _, cache = hooked.run_with_cache(inputs, names_filter=names)
    sound = (inputs["input_ids"] == hooked.model.audio_token_id)[0]
    with hooked.route(hooked.current_route.frozen_from(1)):
        audio = ["blocks.1.attn.hook_audio_k", "blocks.1.attn.hook_audio_v"]
        _, frozen = hooked.run_with_cache(inputs, names_filter=audio)
    for running, kept in zip(names, audio, strict=True):
        torch.testing.assert_close(frozen[kept], cache[running][:, sound], **CLOSE)


@torch.no_grad()
def test_a_run_that_others_go_on_from_switches_adapters_itself(hooked: Any) -> None:
    """Whatever the last call left on or off."""
    inputs = with_encoded(hooked, hooked.inputs(WORDS, noise(1.3)))
    wanted = hooked(inputs)[0, -1]
    hooked(hooked.inputs("say this"))
    plain = run_plainly(hooked.model, inputs["input_ids"], None, inputs["audio"])
    torch.testing.assert_close(plain.logits, wanted, atol=1e-4, rtol=0)
    hooked(hooked.inputs("say this"))
    resumed = resume(hooked.model, plain, [0], 0)[0]
    torch.testing.assert_close(resumed, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
def test_what_keys_write_has_the_adapter_s_part(hooked: Any) -> None:
    inputs = hooked.inputs(WORDS, noise(1.3))
    _, cache = hooked.run_with_cache(inputs)
    for writes in attention_writes(hooked, inputs):
        added = cache[f"blocks.{writes.layer}.hook_attn_out"][0, -1]
        torch.testing.assert_close(writes.written.sum((0, 1)), added, **CLOSE)
    assert len(measures.attention_mass(hooked, inputs)) > 0


@torch.no_grad()
def test_each_question_is_answered_as_the_class_answers_it(hooked: Any, plain: Any) -> None:
    asked = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    for clips in ([noise(2.3)], []):
        inputs = hooked.inputs(WORDS, *clips)
        own = given(hooked.processor.chat(WORDS, len(clips)), clips)
        with_adapter(plain, "speech" if clips else None, own)
        wanted = plain.generate(**own, **asked)
        assert torch.equal(hooked.model.generate(**inputs, **asked), wanted)


# -- longrope -------------------------------------------------------------------------------------


@pytest.fixture
def short() -> tuple[PublishedAudioModel, PublishedProcessor]:
    """Its angles differ in prompts of more than 40 columns."""
    model = doubled(tiny.model)
    config: Any = model.config
    config.original_max_position_embeddings = 40
    config.rope_parameters["original_max_position_embeddings"] = 40
    made = tiny.processor()
    family = published_family(model.config)
    processor = PublishedProcessor(family, made.tokenizer, made.audio_processor, made.chat_template)
    return PublishedAudioModel(model, family), processor


@torch.no_grad()
def test_a_prompt_that_grows_past_the_switch_needs_no_cache(short: Any) -> None:
    model, processor = short
    text = processor.chat(WORDS)
    inputs = processor(text, noise(1.3), sampling_rate=RATE)
    asked = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
    own = given(text, [noise(1.3)])
    wanted = model.published.generate(**own, **asked, use_cache=False)
    assert inputs["input_ids"].shape[1] < 40 < wanted.shape[1]
    assert torch.equal(model.generate(**inputs, **asked, use_cache=False), wanted)
    with pytest.raises(PromptError, match="use_cache=False"):
        model.generate(**inputs, **asked)
    long = processor(text, noise(4.0), sampling_rate=RATE)  # all of it beyond the switch
    own = given(text, [noise(4.0)])
    asked = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**long, **asked), model.published.generate(**own, **asked))


def test_rows_on_both_sides_of_the_switch_are_refused(short: Any) -> None:
    model, processor = short
    texts = [processor.chat(WORDS)] * 2
    inputs = processor(texts, [noise(1.3), noise(4.0)], sampling_rate=RATE)
    with pytest.raises(PromptError, match="two batches"):
        model(**inputs)


# -- files ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_an_opened_folder_has_the_adapter_for_speech_alone(folder: Path, hooked: Any) -> None:
    assert (folder / "vision-lora" / "adapter_model.safetensors").is_file()
    again = palscope.load(folder)
    for clips in ([noise(1.3)], []):
        inputs = again.inputs(WORDS, *clips)
        torch.testing.assert_close(again(inputs), hooked(inputs), atol=1e-5, rtol=0)
    assert set(again.model.published.peft_config) == {"speech"}


def test_a_folder_without_the_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-lora"))
    with pytest.raises(CheckpointError, match="speech-lora"):
        palscope.load(copied)


def test_weights_of_the_first_code_are_refused_with_a_hint(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "phi4mm", "auto_map": {"AutoConfig": "configuration_phi4mm.Phi4MM"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="refs/pr/70"):
        palscope.load(tmp_path)

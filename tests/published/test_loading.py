"""Opening published models: spread over disk, in few bits of memory, and what cannot be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    Qwen2AudioForConditionalGeneration,
)

import palscope
from palscope._routing import Route
from palscope.errors import CheckpointError, PalscopeError, RouteError
from tests import few_bits
from tests.published.conftest import noise
from tests.published.contract import save_parts
from tests.published.tiny import qwen2_audio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("published")
    qwen2_audio.model().save_pretrained(made)
    save_parts(qwen2_audio.processor(), made)
    return made


def test_layers_on_disk_give_the_same_logits(folder: Path, tmp_path: Path) -> None:
    names = ["model.audio_tower", "model.multi_modal_projector", "lm_head"]
    names += [f"model.language_model.{part}" for part in ("embed_tokens", "norm", "rotary_emb")]
    names += [f"model.language_model.layers.{number}" for number in range(3)]
    places = {name: "disk" if name.endswith(("2", "projector")) else "cpu" for name in names}
    spread = palscope.load(folder, device_map=places, offload_folder=tmp_path)
    layers: Any = spread.model.decoder.layers
    assert next(layers[2].parameters()).device.type == "meta"
    plain = palscope.load(folder)
    inputs = plain.inputs("what?", noise(1.3))
    for route in (plain.current_route, plain.current_route.frozen_from(1)):
        with torch.no_grad(), plain.route(route), spread.route(route):
            torch.testing.assert_close(spread(inputs), plain(inputs), atol=1e-6, rtol=0)


def test_half_precision_is_the_checkpoints_own_or_asked_for(folder: Path) -> None:
    assert palscope.load(folder).model.dtype == torch.float32
    half = palscope.load(folder, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
    assert isinstance(half.ask("what?", noise(1.3), max_new_tokens=2), str)


@pytest.mark.parametrize("bits", [8, 4])
@torch.no_grad()
def test_few_bits_are_those_of_the_plain_class(bits: int, tmp_path: Path) -> None:
    shape = qwen2_audio.config()  # in widths that bitsandbytes' kernels for CPUs take
    shape.audio_config.update({"d_model": 64, "encoder_ffn_dim": 128})
    shape.text_config.update({"hidden_size": 64, "intermediate_size": 128})
    qwen2_audio.model(shape=shape).save_pretrained(tmp_path)
    processor = qwen2_audio.processor()
    save_parts(processor, tmp_path)
    asked: Any = {"quantization_config": few_bits.config(bits), "dtype": torch.float32}
    plain: Any = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path, **asked)
    few = palscope.load(tmp_path, **asked)
    assert len(few_bits.maps(few.model, bits)) == len(few_bits.maps(plain, bits)) > 0
    inputs = few.inputs("what?", noise(1.3))
    mel = processor.feature_extractor(
        noise(1.3), sampling_rate=16_000, padding="max_length", return_attention_mask=True
    )
    wanted = plain(
        input_ids=inputs["input_ids"],
        input_features=torch.tensor(mel["input_features"]),
        feature_attention_mask=torch.tensor(mel["attention_mask"]),
    ).logits
    got, cache = few.run_with_cache(inputs)
    whole = palscope.load(tmp_path)(inputs)
    # Not zero: some CPUs multiply 4 bits in bfloat16.
    assert (got - wanted).norm() < 0.01 * (whole - wanted).norm()
    assert torch.equal(cache["unembed.hook_out"], got)


def test_what_cannot_be_opened_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="needs its processor"):
        palscope.load(qwen2_audio.model())
    model = palscope.load(folder)
    with pytest.raises(RouteError, match="no projector"):
        model.set_route(Route.lal(3))
    with pytest.raises(RouteError, match="one stream"):
        model.set_route(Route.pal(3))
    with pytest.raises(PalscopeError, match="takes no stream of sound"):
        model.audio_stream()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="no published class of model type 'bert'"):
        palscope.load(tmp_path)


@torch.no_grad()
def test_a_clip_s_mark_that_the_model_writes_is_a_word_as_in_its_class() -> None:
    """Behind the prompt there is no clip that it could stand for."""
    hooked: Any = palscope.load(qwen2_audio.model(), processor=qwen2_audio.processor())
    plain, own = qwen2_audio.model(), qwen2_audio.processor()
    mark = hooked.model.audio_token_id

    class Marks(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls in (2, 3):
                scores = scores.clone()
                scores[:, mark] = scores.max() + 1
            return scores

    asked: Any = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    text = hooked.processor.chat("what?")
    given = own(text=text, audio=noise(1.3), sampling_rate=16_000, return_tensors="pt")
    wanted = plain.generate(**given, **asked, logits_processor=LogitsProcessorList([Marks()]))
    inputs = hooked.inputs("what?", noise(1.3))
    got = hooked.model.generate(**inputs, **asked, logits_processor=LogitsProcessorList([Marks()]))
    assert torch.equal(got, wanted)
    assert got[0, inputs["input_ids"].shape[1] :].tolist().count(mark) == 2

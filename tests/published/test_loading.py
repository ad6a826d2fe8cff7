"""Opening published models: spread over disk, in few bits of memory, and what cannot be opened."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig

import palscope
from palscope.errors import CheckpointError, PalscopeError, RouteError
from palscope.routing import Route
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


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is optional"
)
def test_few_bits(folder: Path) -> None:
    config = BitsAndBytesConfig(load_in_4bit=True)
    few = palscope.load(folder, quantization_config=config, device_map={"": "cpu"})
    assert isinstance(few.ask("what?", noise(1.3), max_new_tokens=2), str)


def test_what_cannot_be_opened_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="needs its processor"):
        palscope.load(qwen2_audio.model())
    model = palscope.load(folder)
    with pytest.raises(RouteError, match="no projector"):
        model.set_route(Route.lal(3))
    with pytest.raises(RouteError, match="one stream"):
        model.set_route(Route.pal(3))
    with pytest.raises(PalscopeError, match="cannot listen to a stream"):
        model.listen()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="'bert' is none that palscope opens"):
        palscope.load(tmp_path)

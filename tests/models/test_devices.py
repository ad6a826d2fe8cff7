"""Models spread over devices and disk, and decoders of few bits, against the plain model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from palscope._models import PalscopeForConditionalGeneration
from palscope._models.devices import device_of
from palscope._routing import Route
from palscope.encoders._weights import load_whisper_encoder
from palscope.errors import CheckpointError
from tests import few_bits, tiny
from tests.models.test_checkpoints import a_tokenizer
from tests.tiny import ROUTES


def asked(route: Route) -> dict[str, torch.Tensor]:
    return tiny.batch([[37], [52, 30]], streams=route.streams)


def saved(route: Route, folder: Path) -> Any:
    made = tiny.model(route).eval()
    made.save_pretrained(folder)
    return made


def light(folder: Path, family: str = "llama", **sizes: Any) -> Any:
    """A model saved beside its bases, which are local folders."""
    donor: Any = tiny.model(ROUTES["pal"], family, **sizes)
    donor.language_model.save_pretrained(folder / "text")
    a_tokenizer().save_pretrained(folder / "text")
    donor.encoder.model.save_pretrained(folder / "sound")
    made = PalscopeForConditionalGeneration.from_parts(
        AutoModelForCausalLM.from_pretrained(folder / "text"),
        load_whisper_encoder(str(folder / "sound"), (1, 2)),
        ROUTES["pal"],
        tiny.full_connector(ROUTES["pal"]),
        audio_token_id=tiny.AUDIO_ID,
        text_base=str(folder / "text"),
        encoder_base=str(folder / "sound"),
    ).eval()
    made.freeze_bases()
    made.save_pretrained(folder / "light")
    return made


@torch.no_grad()
def said(model: Any, route: Route) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a prompt, and what is written after it."""
    batch = asked(route)
    written = model.generate(**batch, max_new_tokens=4, do_sample=False, pad_token_id=0)
    return model(**batch).logits, written


def same(model: Any, plain: Any, route: Route) -> None:
    for one, other in zip(said(model, route), said(plain, route), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def map_of(*on_disk: str) -> dict[str, str]:
    """Layers 2 and 3 and what is named on disk, the rest on the CPU."""
    parts = ["embed_tokens", "norm", "rotary_emb", *(f"layers.{n}" for n in range(4))]
    names = [f"language_model.model.{part}" for part in parts]
    names += ["language_model.lm_head", "encoder", "connector", "audio_taps"]
    disk = ("layers.2", "layers.3", *on_disk)
    return {name: "disk" if name.endswith(disk) else "cpu" for name in names}


@pytest.mark.parametrize("name", ROUTES)
def test_layers_on_disk(name: str, tmp_path: Path) -> None:
    plain = saved(ROUTES[name], tmp_path / "model")
    model: Any = PalscopeForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map=map_of(), offload_folder=tmp_path / "offload"
    )
    layers = model.language_model.model.layers
    assert next(layers[3].parameters()).device.type == "meta"
    assert device_of(layers[3]) == device_of(layers[0]) == torch.device("cpu")
    same(model, plain, ROUTES[name])


def test_everything_on_disk(tmp_path: Path) -> None:
    route = ROUTES["pal"]
    plain = saved(route, tmp_path / "model")
    model: Any = PalscopeForConditionalGeneration.from_pretrained(
        tmp_path / "model",
        device_map=map_of("embed_tokens", "encoder", "connector", "lm_head", "layers.0"),
        offload_folder=tmp_path / "offload",
    )
    same(model, plain, route)


def test_auto_keeps_each_layer_encoder_and_connector_whole(tmp_path: Path) -> None:
    route = ROUTES["pal"]
    plain = saved(route, tmp_path / "model")
    whole: Any = PalscopeForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map="auto"
    )
    same(whole, plain, route)
    assert {type(layer).__name__ for layer in plain.language_model.model.layers} < set(
        whole._no_split_modules
    )
    assert {"WhisperEncoder", "Connector"} < set(whole._no_split_modules)


def test_a_light_checkpoint_is_spread_too(tmp_path: Path) -> None:
    plain = light(tmp_path)
    spread = {"model.embed_tokens": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    spread |= {f"model.layers.{n}": "disk" if n % 2 else "cpu" for n in range(4)}
    model: Any = PalscopeForConditionalGeneration.from_pretrained(
        tmp_path / "light",
        device_map=spread | {"lm_head": "cpu"},
        offload_folder=tmp_path / "offload",
    )
    assert next(model.language_model.model.layers[1].parameters()).device.type == "meta"
    assert next(model.connector.parameters()).device.type == "cpu"
    same(model, plain, ROUTES["pal"])


@pytest.mark.parametrize("name", ["plits", "lal", "pal", "queries"])
@torch.no_grad()
def test_upper_layers_on_a_second_device(name: str) -> None:
    """The meta device stands for it: what was left on the first would be an error there."""
    model = tiny.model(ROUTES[name]).eval()
    text = model.language_model
    for module in (*text.model.layers[2:], text.model.norm, text.lm_head):
        module.to("meta")
        add_hook_to_module(module, AlignDevicesHook(execution_device="meta"))
    batch = asked(ROUTES[name])
    out = model(**batch, use_cache=True)
    assert out.logits.device.type == "meta"
    assert out.logits.shape == (*batch["input_ids"].shape, tiny.VOCABULARY)
    held = [layer.keys.device.type for layer in out.past_key_values.layers]
    assert held == ["cpu", "cpu", "meta", "meta"]
    word = torch.full((2, 1), 5)
    assert model(input_ids=word, past_key_values=out.past_key_values).logits.shape[1] == 1


# -- few bits -------------------------------------------------------------------------------------


def test_few_bits_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(ROUTES["pal"], tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"need bitsandbytes: pip install 'palscope\[bits\]'"):
        PalscopeForConditionalGeneration.from_pretrained(
            tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True)
        )
    with pytest.raises(CheckpointError, match=r"quantization_config is a dict"):
        PalscopeForConditionalGeneration.from_pretrained(tmp_path, quantization_config={"bits": 4})


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ["whole", "light"])
@torch.no_grad()
def test_the_decoder_alone_has_few_bits(bits: int, kind: str, tmp_path: Path) -> None:
    sizes: Any = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128}
    if kind == "light":
        plain = light(tmp_path, **sizes)
    else:
        plain = tiny.model(ROUTES["pal"], **sizes).eval()
        plain.save_pretrained(tmp_path / "whole")
    model: Any = PalscopeForConditionalGeneration.from_pretrained(
        tmp_path / kind, dtype=torch.float32, quantization_config=few_bits.config(bits)
    )
    linear = {
        name
        for name, part in plain.named_modules()
        if isinstance(part, torch.nn.Linear) and ".layers." in name and "language" in name
    }
    assert few_bits.maps(model, bits) == linear
    # The oracle: the plain model with the weights that the few bits stand for.
    meant = few_bits.meant(model, bits)
    batch = asked(ROUTES["pal"])
    got, unchanged = (each(**batch).logits for each in (model, plain))
    for name, weight in meant.items():
        plain.get_submodule(name).weight.copy_(weight)
    expected = plain(**batch).logits
    # The kernels round as well: of 8 bits the activations, of 4 bits to bfloat16 on some CPUs.
    assert (got - expected).norm() < 0.1 * expected.norm()
    if bits == 4:
        assert (got - expected).norm() < 0.3 * (got - unchanged).norm()
